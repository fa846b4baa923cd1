"""The documentation is held to the code: nothing is missing from it, and nothing leads nowhere."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bridge.cli import main
from bridge.errors import CODES
from bridge.http import describe
from bridge.http.app import create_app
from bridge.http.pages import files
from bridge.limits import DEFAULTS
from bridge.registry import PROVIDERS
from bridge.service import Service
from bridge.settings import TABLE, Settings
from bridge.wire.native import GenerateBody
from tools.docs import COMPATIBILITY, CONFIGURATION, compatibility, configuration

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("**/*.md"),
        *(ROOT / "deploy").glob("*/*.md"),
        ROOT / "data" / "README.md",
    ],
    key=lambda path: path.relative_to(ROOT),
)
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in PAGES}
EVERYTHING = "\n".join(TEXTS.values())
API = TEXTS["docs/api.md"]

LONGEST_LINE = 120
#: What belongs to one machine, or to somebody's set-up of package sources.
FOREIGN = re.compile(
    r"/(?:home|root|work|srv|mnt|Users|tmp)/|/opt/(?!cli-bridge\b)|file://|registry\.npmjs|pypi\.org|pythonhosted|/simple/|crates\.io"
)


#: The most that the pages may have together, in KiB: as they are served, and as they are sent, files compressed.
MOST_SERVED, MOST_SENT = 250, 105


def test_the_pages_are_as_small_as_the_docs_say(tmp_path: Path) -> None:
    """Of the API reference, its template and its style sheet; what is written there is the description of the API."""
    service = Service(Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data")}))
    try:
        client = create_app(service).test_client()
        plain = [client.get(path).data for path in ("/", "/admin/", "/docs/style.css")]
    finally:
        service.close()
    plain.append((Path(describe.__file__).with_name("docs.html")).read_bytes())
    content = files().content.values()
    assert sum(map(len, [*content, *plain])) <= MOST_SERVED * 1024
    assert sum(map(len, [*map(gzip.compress, content), *plain])) <= MOST_SENT * 1024
    sizes = f"at most {MOST_SERVED} KiB as they are served, without a library, and {MOST_SENT} KiB as they are sent"
    assert sizes in " ".join(TEXTS["docs/dashboard.md"].split())


def test_configuration_is_up_to_date() -> None:
    assert CONFIGURATION.read_text() == configuration(), "run: python -m tools.docs"


def test_compatibility_is_up_to_date() -> None:
    assert COMPATIBILITY.read_text() == compatibility(), "run: python -m tools.docs"


@pytest.mark.parametrize("variable", [row["variable"] for row in TABLE])
def test_every_setting_is_described(variable: str) -> None:
    assert f"`{variable}`" in TEXTS["docs/configuration.md"]


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\bBRIDGE_[A-Z_]*[A-Z]\b", EVERYTHING))))
def test_every_setting_that_is_named_exists(variable: str) -> None:
    # A pattern such as BRIDGE_DEFAULT_… stands for several.
    assert any(row["variable"].startswith(variable) for row in TABLE)


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_is_in_the_api_with_its_status_and_hint(code: str) -> None:
    entries = [" ".join(entry.split()) for entry in re.split(r"\n(?=- |\n)", API)]
    entry = next((entry for entry in entries if entry.startswith(f"- `{code}` (")), None)
    assert entry is not None
    assert entry.startswith(f"- `{code}` ({CODES[code].status}): ")
    assert entry.endswith(f"→ {CODES[code].hint}")


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_has_advice(code: str) -> None:
    assert f"`{code}`" in TEXTS["docs/troubleshooting.md"]


def test_every_error_code_that_is_described_exists() -> None:
    assert set(re.findall(r"^- `(\w+)` \(\d{3}\)", API, re.MULTILINE)) == set(CODES)


def test_every_route_is_in_the_api(tmp_path: Path) -> None:
    service = Service(Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data")}))
    try:
        rules = list(create_app(service).url_map.iter_rules())
    finally:
        service.close()
    assert rules
    missing = [f"{method} {rule.rule}" for rule in rules for method in _methods(rule) if not _described(method, rule)]
    assert missing == []


def _methods(rule: object) -> set[str]:
    return set(rule.methods) - {"HEAD", "OPTIONS"}  # type: ignore[attr-defined]


def _described(method: str, rule: object) -> bool:
    """Whether the API page has the route: with its method, or as a further ending in the same line."""
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda m: {"name": "NAME"}.get(m[1], "ID"), rule.rule)  # type: ignore[attr-defined]
    if re.search(rf"`{method} {re.escape(path)}[`?]", API):
        return True
    parent, _, last = path.rpartition("/")
    return any(f"`{method} {parent}/" in line and f"`/{last}`" in line for line in API.splitlines())


@pytest.mark.parametrize("field", GenerateBody.__struct_encode_fields__)
def test_every_field_of_a_request_is_in_the_api(field: str) -> None:
    assert f"| `{field}` |" in API


@pytest.mark.parametrize("limit", DEFAULTS)
def test_every_limit_is_in_the_api(limit: str) -> None:
    assert f"`{limit}`" in API


def _commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    yield name.strip(), command
    if isinstance(command, click.Group):
        for inner_name, inner in command.commands.items():
            yield from _commands(inner, f"{name} {inner_name}")


@pytest.mark.parametrize(("name", "command"), [(n, c) for n, c in _commands(main) if n])
def test_every_command_and_option_is_described(name: str, command: click.Command) -> None:
    page = TEXTS["docs/commands.md"]
    assert re.search(rf"`(?:cli-bridge )?{name}\b", page)
    options = [opt for param in command.params if isinstance(param, click.Option) for opt in param.opts]
    assert [opt for opt in options if not re.search(rf"(?<![\w-]){opt}\b", page)] == []


@pytest.mark.parametrize("page", TEXTS)
def test_no_page_names_a_machine_or_a_package_registry(page: str) -> None:
    assert FOREIGN.findall(TEXTS[page]) == []


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_pages_name_the_version_of_a_cli_that_the_tests_run(name: str) -> None:
    version = PROVIDERS[name].tested
    (row,) = re.findall(r"^\| package, tested version \|.*$", TEXTS["docs/clis.md"], re.MULTILINE)
    assert re.search(rf"/{name}[\w-]*` {re.escape(version)} ", row)
    # As a client of the bridge, too.
    assert f"\n| {name} | {version} | test |" in TEXTS["docs/clients.md"]


def test_every_client_that_was_tried_works_or_its_row_says_what_does_not() -> None:
    rows = re.findall(r"^\|.*\| (?:test|seen) \| (\w+) \|(.*)\|$", TEXTS["docs/clients.md"], re.MULTILINE)
    assert len(rows) == 56
    assert {works for works, _ in rows} == {"yes", "own"}
    assert all(works == "yes" or remark.strip() for works, remark in rows)


@pytest.mark.parametrize("page", TEXTS)
def test_lines_are_short(page: str) -> None:
    assert [line for line in TEXTS[page].splitlines() if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_somewhere(page: str) -> None:
    text = _without_code(TEXTS[page])
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [link for link in links if not link.startswith(("https://", "http://"))]
    assert [link for link in local if not _leads_somewhere(page, link)] == []


def _leads_somewhere(page: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", TEXTS)
def test_every_file_of_the_project_that_is_named_exists(page: str) -> None:
    named = re.findall(r"`((?:bridge|deploy|docs|tests|benchmarks)/[\w./-]+)`", TEXTS[page])
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_begins_with_the_three_commands() -> None:
    first = re.search(r"```sh\n(.*?)```", TEXTS["README.md"], re.DOTALL)
    assert first is not None
    assert first[1].splitlines() == ["./run", "./run demo", "./run test"]
    assert len(TEXTS["README.md"].splitlines()) < 200
