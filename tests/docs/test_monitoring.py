"""The page on monitoring, the dashboard and the alert rules name what the bridge really has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.http.metrics import MOST_VALUES, Metrics
from bridge.limits import Limits
from bridge.ops.alerts import WINDOWS_S
from bridge.service import Service, demo_providers
from bridge.settings import Settings
from tests.support.ledger import record

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
RULES = (ROOT / "deploy" / "monitoring" / "alerts.yml").read_text()
DASHBOARD = json.loads((ROOT / "deploy" / "monitoring" / "grafana.json").read_text())
NAME = re.compile(r"\b(?:cli_bridge|bridge_overhead)_\w+")
SERIES = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Every metric of an opened service by the name that it is shown with."""
    settings = Settings.load({"BRIDGE_DATA_DIR": str(tmp_path_factory.mktemp("metrics") / "data")})
    service = Service(settings, make_providers=demo_providers)
    try:
        service.open()
        service.keys.create("ada", Limits())
        service.backups.note_good(1)
        metrics = Metrics(service)
        metrics.responses.labels("200").inc()
        service.gate.refused["second call"] += 1
        service.gate.misreported["claude"] += 1
        metrics.observe(record("run_1", provider="claude", warm=False, overhead_ms=20))
        yield {
            family.name + ("_total" if family.type == "counter" else "_info" if family.type == "info" else ""): family
            for family in metrics.registry.collect()
        }
    finally:
        service.close()


@pytest.mark.parametrize(
    ("where", "text"), [("docs", PAGE), ("rules", RULES), ("dashboard", json.dumps(DASHBOARD))], ids=lambda t: t[:9]
)
def test_every_metric_that_is_named_exists(where: str, text: str, families: dict[str, Any]) -> None:
    histograms = {name for name, family in families.items() if family.type == "histogram"}
    for name in set(NAME.findall(text)):
        assert name in families or SERIES.sub("", name) in histograms, f"{where} names {name}"


def test_every_metric_is_on_the_page_and_on_the_dashboard(families: dict[str, Any]) -> None:
    shown = json.dumps(DASHBOARD)
    assert [name for name in families if f"`{name}`" not in PAGE] == []
    assert [name for name in families if name not in shown] == []


def test_every_label_that_a_rule_or_panel_uses_exists(families: dict[str, Any]) -> None:
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}
    used = set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", RULES + json.dumps(DASHBOARD)))
    assert used <= labels
    grouped = set(re.findall(r"by \(([^)]*)\)", RULES + json.dumps(DASHBOARD)))
    assert {name for group in grouped for name in group.split(", ")} <= labels


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_labels_have_few_values_whatever_comes(tmp_path: Path) -> None:
    service = Service(Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data")}))
    try:
        metrics = Metrics(service)
        for number in range(200):
            hostile = f"made-up-{number}"
            line = record(hostile, key_name=hostile, provider=hostile, model=hostile, api=hostile, code=hostile)
            metrics.observe(line)
        values: dict[str, set[str]] = {}
        for family in metrics.registry.collect():
            for sample in family.samples:
                for label, value in sample.labels.items():
                    values.setdefault(label, set()).add(value)
    finally:
        service.close()
    assert values["provider"] == {"other"}
    assert values["code"] == {"other"}
    assert len(values["api"]) == MOST_VALUES + 1
    assert not {"model", "key", "keyName", "path"} & values.keys()


@pytest.mark.parametrize("kind", WINDOWS_S)
def test_every_kind_of_alert_is_described(kind: str) -> None:
    assert f"| `{kind}` |" in PAGE
