"""The way to the models: through the proxy of the settings, or past it, and with which certificates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from bridge.clock import Clock
from bridge.errors import SettingsError
from bridge.gate.server import Gate
from bridge.gate.ticket import Ticket, Upstream
from bridge.gate.upstream import Connections, proxy_of
from bridge.settings import Settings
from tests.gate.conftest import SECRET, ask, messages_body, vouched
from tests.standin import StandIn
from tests.support.proxy import certificate, proxy_to, tls_before

LOGIN, ENCODED = "bob:p@ss/w:rd", "bob:p%40ss%2Fw%3Ard"
GateWith = Callable[..., AbstractContextManager[Gate]]


@pytest.fixture
def gate_with() -> GateWith:
    @contextmanager
    def make(**env: str) -> Iterator[Gate]:
        gate = Gate(Clock(), Connections(Settings.load(env).network))
        gate.open()
        try:
            yield gate
        finally:
            gate.close()

    return make


def call(gate: Gate, base_url: str) -> tuple[int, Ticket]:
    ticket = Ticket(Upstream("messages", base_url, SECRET), vouched())
    gate.tickets.add(ticket)
    return ask(gate, ticket.token, messages_body()).status, ticket


def port_of(standin: StandIn) -> int:
    return int(standin.url.rpartition(":")[2])


@pytest.mark.parametrize("spelling", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("url", ["http://{login}127.0.0.1:{port}/", "{login}127.0.0.1:{port}"])
@pytest.mark.parametrize("login", [None, LOGIN])
def test_a_call_goes_through_the_proxy_however_it_is_written(
    gate_with: GateWith, standin: StandIn, tmp_path: Path, spelling: str, url: str, login: str | None
) -> None:
    trusted, context = certificate(tmp_path, "models.test")
    with tls_before(port_of(standin), context) as port, proxy_to(port, login=login) as proxy:
        value = url.format(login=f"{ENCODED}@" if login else "", port=proxy.port)
        with gate_with(**{spelling: value, "SSL_CERT_FILE": str(trusted)}) as gate:
            status, _ = call(gate, "https://models.test")
    assert status == 200
    assert [re.sub(r" HTTP/.*", "", line) for line in proxy.lines] == ["CONNECT models.test:443"]
    [seen] = standin.generations
    assert seen.headers["x-api-key"] == SECRET
    assert "proxy-authorization" not in seen.headers


def test_a_proxy_may_be_spoken_to_in_tls(gate_with: GateWith, standin: StandIn, tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path, "models.test", "localhost")
    with tls_before(port_of(standin), context) as port, proxy_to(port, login=LOGIN, tls=context) as proxy:
        env = {"HTTPS_PROXY": f"https://{ENCODED}@localhost:{proxy.port}", "SSL_CERT_FILE": str(trusted)}
        with gate_with(**env) as gate:
            assert call(gate, "https://models.test")[0] == 200
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("spelling", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_an_endpoint_without_tls_goes_through_it_as_well(gate_with: GateWith, standin: StandIn, spelling: str) -> None:
    with (
        proxy_to(port_of(standin), login=LOGIN) as proxy,
        gate_with(**{spelling: f"http://{ENCODED}@127.0.0.1:{proxy.port}"}) as gate,
    ):
        assert call(gate, "http://models.test")[0] == 200
    assert proxy.lines == {"POST http://models.test/v1/messages?beta=true HTTP/1.1"}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_another_password_has_cost_nothing_and_the_password_is_not_told(
    gate_with: GateWith, standin: StandIn, scheme: str
) -> None:
    with (
        proxy_to(port_of(standin), login="bob:another") as proxy,
        gate_with(ALL_PROXY=f"http://{ENCODED}@127.0.0.1:{proxy.port}") as gate,
    ):
        status, ticket = call(gate, f"{scheme}://models.test")
    assert (status, ticket.call.unreachable, ticket.call.status) == (502, True, None)
    assert "proxy" in (ticket.call.error_message or "")
    assert not [each for each in ("p@ss", "p%40ss") if each in (ticket.call.error_message or "")]
    assert standin.generations == []


def test_a_proxy_that_is_not_there_is_said_to_be_it(gate_with: GateWith) -> None:
    with gate_with(HTTPS_PROXY=f"http://{ENCODED}@127.0.0.1:9") as gate:
        status, ticket = call(gate, "https://models.test")
    assert (status, ticket.call.unreachable) == (502, True)
    assert (ticket.call.error_message or "").startswith("the proxy: ")
    assert "p%40ss" not in (ticket.call.error_message or "")


def test_this_host_is_reached_without_a_proxy(gate_with: GateWith, standin: StandIn) -> None:
    with gate_with(ALL_PROXY="http://127.0.0.1:9") as gate:
        assert call(gate, standin.url)[0] == 200


def test_without_its_certificate_nobody_is_believed(gate_with: GateWith, standin: StandIn, tmp_path: Path) -> None:
    _, context = certificate(tmp_path, "models.test")
    with (
        tls_before(port_of(standin), context) as port,
        proxy_to(port) as proxy,
        gate_with(HTTPS_PROXY=f"127.0.0.1:{proxy.port}") as gate,
    ):
        status, ticket = call(gate, "https://models.test")
    assert (status, ticket.call.unreachable) == (502, True)
    assert standin.generations == []


def test_certificates_that_are_none_are_a_mistake_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    network = Settings.load({"SSL_CERT_FILE": str(tmp_path / "broken.pem")}).network
    with pytest.raises(SettingsError, match="SSL_CERT_FILE"):
        Connections(network)


@pytest.mark.parametrize(
    ("exceptions", "url", "past"),
    [
        ("", "https://api.anthropic.com", False),
        ("*", "https://api.anthropic.com", True),
        ("api.anthropic.com", "https://api.anthropic.com/v1", True),
        ("anthropic.com", "https://api.anthropic.com", True),
        (".anthropic.com", "https://api.anthropic.com", True),
        ("*.anthropic.com", "https://API.anthropic.com.", True),
        ("thropic.com", "https://api.anthropic.com", False),
        ("example.com, .openai.com", "https://api.openai.com", True),
        ("example.com .openai.com", "https://api.openai.com", True),
        ("api.openai.com:443", "https://api.openai.com", True),
        ("api.openai.com:8443", "https://api.openai.com", False),
        ("10.0.0.0/8", "https://10.1.2.3:8443", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("10.1.2.3:8080", "http://10.1.2.3:8080", True),
        ("fd00::/8", "https://[fd00::1]", True),
        ("[fd00::1]:8443", "https://[fd00::1]:8443", True),
        ("[fd00::1]:8443", "https://[fd00::1]", False),
        ("", "http://localhost:4000", True),
        ("", "http://127.0.0.1:4000", True),
        ("", "http://[::1]:4000", True),
        (",,", "https://api.openai.com", False),
    ],
)
def test_no_proxy_names_hosts_in_all_the_usual_ways(exceptions: str, url: str, past: bool) -> None:
    network = Settings.load({"ALL_PROXY": "proxy:3128", "NO_PROXY": exceptions}).network
    assert proxy_of(url, network) == (None if past else "http://proxy:3128")
