"""The API description is what the server does: every route, every type, and nothing that it rejects."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import ignored_auth, missing_required_header

from bridge.errors import CODES
from bridge.http.app import create_app, document
from bridge.service import Service
from bridge.settings import Settings
from tests.support.server import ADMIN_KEY, Server

DOCUMENT = document()
OPERATIONS = [(method, path, op) for path, ops in DOCUMENT["paths"].items() for method, op in ops.items()]
#: Cases for each operation: the whole takes half a minute.
CASES = 3


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return server.new_key("described")


# --- the description itself --------------------------------------------------------------------


def test_every_route_is_described_and_every_description_is_a_route(tmp_path: Path) -> None:
    service = Service(Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data")}))
    try:
        rules = list(create_app(service).url_map.iter_rules())
    finally:
        service.close()
    routes = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {(method, path) for method, path, _ in OPERATIONS}
    # Only commands on the bridge's own host may call these: they are no part of the API.
    routes -= {("get", "/admin/snapshot")}
    routes -= {("post", f"/admin/{name}") for name in ("backups", "import", "link")}
    assert routes - described == set()
    assert described - routes == set()


def test_every_reference_leads_somewhere() -> None:
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT))):
        place: Any = DOCUMENT
        for part in reference.split("/"):
            place = place[part]
        assert place is not None


def test_every_error_code_has_an_example_in_the_shape_of_each_api() -> None:
    examples = DOCUMENT["components"]["examples"]
    for api in ("native", "openai-chat", "anthropic"):
        assert {name.partition(".")[2] for name in examples if name.startswith(f"{api}.")} == set(CODES)
    used = set(re.findall(r"examples/native\.(\w+)", json.dumps(DOCUMENT)))
    # These two belong to paths and methods that are not there.
    assert used == set(CODES) - {"method_not_allowed"}


def test_every_schema_is_a_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_command_prints_what_the_server_says(server: Server) -> None:
    printed = server.command("openapi")
    assert printed.returncode == 0, printed.stderr
    assert json.loads(printed.stdout) == server.call("GET", "/openapi.json").json == DOCUMENT


@pytest.mark.parametrize(
    ("method", "path", "op"), [row for row in OPERATIONS if "requestBody" in row[2]], ids=lambda v: str(v)[:40]
)
def test_every_example_of_a_body_is_taken(server: Server, key: str, method: str, path: str, op: dict[str, Any]) -> None:
    example = op["requestBody"]["content"]["application/json"]["example"]
    if "{name}" in path:
        server.admin("POST", "/keys", {"name": "example"})
        server.admin("POST", "/credentials", {"name": "example", "provider": "claude", "apiKey": "sk-an-example"})
    given = ADMIN_KEY if path.startswith("/admin") else key
    answer = server.call(method.upper(), path.replace("{name}", "example"), example, key=given)
    assert str(answer.status) == next(iter(op["responses"])), answer.body


# --- the page ----------------------------------------------------------------------------------


class _Page(HTMLParser):
    """What a page refers to and what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name in ("href", "src"):
                self.links.append(value or "")
            elif name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")
        if tag in ("script", "style", "iframe", "img"):
            self.inline.append(tag)


def test_the_page_needs_nothing_from_elsewhere_and_has_every_endpoint(server: Server) -> None:
    answer = server.call("GET", "/docs")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = answer.body.decode()
    page = _Page()
    page.feed(text)
    assert page.inline == []
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inside) <= page.ids
    for link in set(page.links) - {f"#{name}" for name in inside}:
        assert link.startswith("/"), f"{link} is elsewhere"
        assert server.call("GET", link).status == 200
    assert {op["operationId"] for _, _, op in OPERATIONS} <= page.ids
    for code in CODES:
        assert code in text or code == "method_not_allowed"
    style = server.call("GET", "/docs/style.css")
    assert style.headers["content-type"].startswith("text/css")
    assert b"url(" not in style.body


# --- the server by its description ------------------------------------------------------------

#: What the description cannot say (the last message is from the user; the schema in a schema is sound; a key of
#: that name is there) is a 400 with a sentence.
CHECKS = {"positive_data_acceptance": {"enabled": False}}
schema = schemathesis.openapi.from_dict(DOCUMENT, config=schemathesis.Config.from_dict({"checks": CHECKS}))
#: After ten wrong admin keys in a minute all are a 429, which these two take for an open door.
THROTTLED = [missing_required_header, ignored_auth]


@schema.parametrize()
@settings(
    max_examples=CASES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_the_server_does_what_the_description_says(case: Any, server: Server, key: str) -> None:
    admin = case.operation.path.startswith(("/admin", "/metrics"))
    # The token for commands on this host opens the admin API also while guesses are throttled.
    secret = json.loads((server.data_dir / "lock").read_text())["token"] if admin else key
    sent = {"headers": {"Authorization": f"Bearer {secret}"}}
    headers = case.meta.components.get(ParameterLocation.HEADER)
    if headers is not None and headers.mode.is_negative and "Authorization" not in case.headers:
        # A case that is wrong for leaving the key out must leave it out.
        sent = {}
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{server.port}",
        excluded_checks=THROTTLED if admin else [],
        timeout=30,
        **sent,
    )


def test_a_description_that_is_wrong_would_be_found_out(server: Server) -> None:
    wrong = json.loads(json.dumps(DOCUMENT))
    wrong["components"]["schemas"]["Health"]["properties"]["status"] = {"enum": ["well"]}
    case = schemathesis.openapi.from_dict(wrong)["/health"]["GET"].Case()
    with pytest.raises(FailureGroup) as caught:
        case.call_and_validate(base_url=f"http://127.0.0.1:{server.port}", timeout=30)
    assert "not one of" in str(caught.value)
