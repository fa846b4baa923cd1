"""A data folder that looks as if a team had used the bridge for months: for benchmarks and pictures."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.clock import day_of, iso
from bridge.keys.keys import Key, KeyHash, hash_of, to_disk
from bridge.ledger.tallies import Counts, Tally, book_of, void
from bridge.limits import Limits
from bridge.store.document import Document
from bridge.store.folder import Store
from bridge.store.journal import encode
from tests.support.ledger import record

PROMPTS = (
    "Rewrite this button label so that it fits into 14 characters: Continue to checkout",
    "Three friendlier variants of this error message: Invalid input in field 7",
    "Summarise these interview notes in five bullet points, most surprising first",
    "Turn this table of feedback into themes with a count for each",
    "Write an empty state for a page without invoices, two sentences at most",
    "Name five edge cases that a tester should try on this form",
    "Translate these 12 strings into German and French, keep the placeholders",
    "Which of these two headlines is clearer, and why? One sentence each",
    "Make up 20 plausible product names for a demo shop, as a JSON list",
    "Draft release notes from these commit messages for people who do not read code",
)
#: Days of before are known without their models.
KNOWN_DAYS = 60
MODELS = {
    "claude": (("claude-sonnet-5-5", 3.0, 15.0), ("claude-haiku-5", 1.0, 5.0)),
    "codex": (("gpt-6-sol", 2.0, 12.0),),
}
"""Provider -> (model, dollars a million input tokens, dollars a million output tokens); for looks only."""


@dataclass(frozen=True)
class Person:
    """A key, and how busy it is compared with the others."""

    name: str
    limits: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0
    note: str = ""
    codex: float = 0.3
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def raw(self) -> str:
        """Its secret: made up, and the same each time."""
        return "cb_" + f"{self.name}-made-up-for-a-demo-".ljust(43, "x")


def write(folder: Path, people: Sequence[Person], *, days: int, lines: int, now: float | None = None) -> None:
    """Fill an empty data folder with keys, usage and a request log of about so many lines."""
    now = time.time() if now is None else now
    chance = random.Random(7)
    Store.open(folder).close()
    _write_keys(folder, people, now - days * 86400.0)
    tallies: dict[str, Tally] = defaultdict(Tally)
    logs = defaultdict(list)
    for number, at in enumerate(_moments(chance, days, lines, now)):
        person = chance.choices(people, [p.weight for p in people])[0]
        line = _line(chance, number, at, person)
        day = day_of(at, UTC)
        logs[day].append(line)
        tally = tallies[person.name]
        tally.last_used_at = at
        if line.status == 429:
            continue
        if now - at > KNOWN_DAYS * 86400:
            # As it is where models were not booked yet.
            tally.days.setdefault(day, Counts()).add(_counts(line))
        else:
            tally.enter(day, book_of(line), _counts(line))
    (folder / "logs").mkdir(mode=0o700)
    seq, path = 0, folder / "logs"
    for day, rows in logs.items():
        path = folder / "logs" / f"{day}.jsonl"
        path.write_bytes(b"".join(encode(number, void(row)) for number, row in enumerate(rows, start=seq + 1)))
        path.chmod(0o600)
        seq += len(rows)
    place = {"seq": seq, "file": path.name, "offset": path.stat().st_size}
    Document(folder / "usage.json").save({**place, "tallies": tallies})


def _write_keys(folder: Path, people: Sequence[Person], created_at: float) -> None:
    keys = [
        Key(
            person.name,
            (KeyHash(hash_of(person.raw)),),
            Limits.parse(person.limits),
            created_at,
            note=person.note,
            last4=person.raw[-4:],
            **person.details,
        )
        for person in people
    ]
    Document(folder / "keys.json").save({"keys": [to_disk(key) for key in keys]})


def _moments(chance: random.Random, days: int, lines: int, now: float) -> list[float]:
    """When the requests came, oldest first: by day, mostly on working days and in office hours."""
    found: list[float] = []
    while len(found) < lines:
        at = now - 600 - chance.random() * days * 86400
        moment = datetime.fromtimestamp(at, UTC)
        likely = (0.5 if moment.weekday() >= 5 else 1.0) * (1.0 if 7 <= moment.hour < 18 else 0.12)
        likely *= 0.55 + 0.45 * (1 - (now - at) / (days * 86400))
        if chance.random() < likely:
            found.append(at)
    return sorted(found)


def _line(chance: random.Random, number: int, at: float, person: Person) -> Any:
    provider = "codex" if chance.random() < person.codex else "claude"
    model, in_price, out_price = chance.choice(MODELS[provider])
    fate = chance.random()
    fields: dict[str, Any] = {
        "key_name": person.name,
        "provider": provider,
        "model": model,
        "stream": chance.random() < 0.6,
        "user_prompt": chance.choice(PROMPTS),
        "warm": provider == "codex" or chance.random() < 0.93,
    }
    if fate > 0.985:
        fields |= {"status": 502, "code": "cli_failed", "error": "The CLI broke off before the answer was complete."}
    elif fate > 0.965:
        fields |= {"status": 429, "code": "cost_per_day", "error": "This key has $0.00 of $5.00 left for today."}
    elif fate > 0.955:
        fields |= {"status": 403, "code": "cancelled", "error": "The client closed the connection."}
    refused = fields.get("status") == 429
    tokens_in = 0 if refused else int(chance.lognormvariate(8.6, 0.9))
    tokens_out = 0 if refused else int(chance.lognormvariate(7.2, 0.7))
    first_ms = int(chance.lognormvariate(6.65, 0.35))
    fields |= {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "cost_usd": 0.0 if refused else round((tokens_in * in_price + tokens_out * out_price) / 1e6, 6),
        "reserved_usd": 0.0 if refused else 0.13,
        "duration_ms": 0 if refused else first_ms + tokens_out * 9,
        "first_token_ms": None if refused else first_ms,
        "stop_reason": None if "status" in fields else "end_turn",
    }
    if refused:
        fields["warm"] = None
    fields["request_id"] = f"req_{int(at * 1000):012x}{number:012x}"
    return record(f"run_{int(at * 1000):014x}{number:012x}", **{**fields, "timestamp": iso(at)})


def _counts(line: Any) -> Counts:
    cost = round(line.cost_usd * 1e6)
    return Counts(
        requests=1,
        errors=int(line.status >= 400),
        input_tokens=line.input_tokens,
        output_tokens=line.output_tokens,
        cost_micro=cost,
    )


TEAM = (
    Person(
        "design-team", {"maxCostPerDay": 12, "maxCostPerMonth": 160, "maxConcurrent": 4}, 5, "Figma plugin and copy"
    ),
    Person("pm-prototypes", {"maxCostPerDay": 6, "maxTokensPerDay": 2_500_000}, 3, "Clickable prototypes"),
    Person("support-macros", {"maxCostPerDay": 3, "maxRequestsPerDay": 300}, 2.2, "Drafts for the help desk", 0.1),
    Person("qa-edge-cases", {"maxCostPerDay": 4, "maxRequestsPerMinute": 20}, 1.6, "Test ideas for every release", 0.6),
    Person(
        "sheet-translations", {"maxCostPerDay": 2, "maxCostPerMonth": 30, "maxConcurrent": 1}, 1.5, "Apps Script", 0.0
    ),
    Person("research-notes", {"maxCostPerMonth": 60}, 1.3, "Interview summaries"),
    Person("landing-page", {"maxCostPerDay": 1}, 0.7, "Headline tests"),
    Person("release-notes", {"maxCostPerDay": 1, "maxTokensPerMonth": 4_000_000}, 0.5, "Runs on each tag", 0.9),
    Person("docs-search", {"maxCostPerDay": 2}, 0.4, "Prototype"),
    Person(
        "workshop-guest",
        {"maxCostPerDay": 1, "maxRequestsPerDay": 50},
        0.15,
        "For one week",
        details={"disabled": True},
    ),
)
"""Keys of a team, for pictures."""
