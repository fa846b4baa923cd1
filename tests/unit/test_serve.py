"""The server's configuration of gunicorn."""

from __future__ import annotations

import pytest
from gunicorn import config

from bridge.ops.serve import Server
from bridge.settings import Settings


def test_gunicorn_is_configured_with_every_option() -> None:
    cfg = Server(Settings()).cfg
    assert (cfg.workers, cfg.limit_request_fields, cfg.forwarded_allow_ips, cfg.control_socket_disable) == (
        1,
        64,
        [],
        True,
    )


def test_an_option_that_gunicorn_does_not_know_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = [setting for setting in config.KNOWN_SETTINGS if setting.name != "forwarder_headers"]
    monkeypatch.setattr(config, "KNOWN_SETTINGS", known)
    with pytest.raises(SystemExit) as ended:
        Server(Settings())
    assert ended.value.code == 1
    assert "does not know forwarder_headers; install the version" in capsys.readouterr().err
