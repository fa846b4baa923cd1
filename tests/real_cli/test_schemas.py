"""Answers that must have a shape: any schema works on both CLIs, a miss is asked for once more, and no more."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from tests.real_cli.conftest import Rig, everything, system_texts, texts
from tests.standin import encode_text

BOTH = pytest.mark.parametrize("path", ["/generate", "/generate-codex"])
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
LOOSE = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def logged(rig: Rig) -> dict[str, Any]:
    row: dict[str, Any] = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    return row


@BOTH
def test_a_schema_gives_parsed_output_with_one_call(rig: Rig, path: str) -> None:
    answer = rig.ask(path, prompt="who?", schema=SCHEMA)
    assert answer.status == 200, answer.body
    assert set(answer.json["output"]) == {"name", "age"}
    assert len(rig.standin.generations) == 1
    assert logged(rig)["repairs"] == 0


#: schema, a value that fits it, whether claude and codex take it in their own way
ANY = [
    (LOOSE, {"name": "Ada"}, True, False),
    ({**LOOSE, "properties": {"name": {"type": "string", "minLength": 2}}}, {"name": "Ada"}, True, False),
    ({**SCHEMA, "$schema": "https://json-schema.org/draft/2020-12/schema"}, {"name": "Ada", "age": 36}, True, True),
    ({**SCHEMA, "$schema": "http://json-schema.org/draft-07/schema#"}, {"name": "Ada", "age": 36}, True, True),
    ({**SCHEMA, "x-mine": True}, {"name": "Ada", "age": 36}, False, False),
    ({**SCHEMA, "dependentRequired": {"name": ["age"]}}, {"name": "Ada", "age": 36}, False, False),
    ({"type": "object"}, {"anything": [1]}, False, False),
    ({"type": "array", "items": {"type": "string"}}, ["a", "b"], False, False),
    ({"type": "string", "enum": ["yes", "no"]}, "yes", False, False),
    ({"anyOf": [SCHEMA, {"type": "null"}]}, {"name": "Ada", "age": 36}, False, False),
    ({"$ref": "#/$defs/p", "$defs": {"p": SCHEMA}}, {"name": "Ada", "age": 36}, False, False),
]


@pytest.mark.parametrize(("schema", "value", "by_claude", "by_codex"), ANY)
@BOTH
def test_any_schema_works_by_the_clis_own_way_or_in_words(
    rig: Rig, path: str, schema: dict[str, Any], value: Any, by_claude: bool, by_codex: bool
) -> None:
    said = encode_text(f"```json\n{json.dumps(value)}\n```")
    answer = rig.ask(path, prompt=f"[[standin text={said}]] who?", schema=schema, systemPrompt="SYSTEM-4711")
    assert answer.status == 200, answer.body
    jsonschema.validate(answer.json["output"], schema)
    assert json.loads(answer.json["content"][0]["text"]) == answer.json["output"]
    (sent,) = rig.standin.generations
    own_way = by_claude if path == "/generate" else by_codex
    form = {**(sent.body.get("text") or {}), **(sent.body.get("output_config") or {})}.get("format") or {}
    assert (form.get("type") == "json_schema") is own_way
    assert not sent.body.get("tools")
    if not own_way:
        assert answer.json["output"] == value
        (told,) = [text for text in system_texts(sent) if "SYSTEM-4711" in text]
        assert told.endswith(json.dumps(schema))
    assert everything(sent).count("SYSTEM-4711") == 1


@BOTH
@pytest.mark.parametrize("way", ["schema_bad", "schema_never"])
def test_an_answer_that_misses_is_asked_for_once_more(rig: Rig, path: str, way: str) -> None:
    # The directive is in the first prompt only, so that the second answer is a good one.
    answer = rig.ask(path, prompt=f"[[standin {way}=1 output=11]] who?", schema=SCHEMA)
    assert answer.status == 200, answer.body
    assert set(answer.json["output"]) == {"name", "age"}
    first, second = rig.standin.generations
    roles = [role for role, _ in texts(second)]
    assert roles == ["user", "assistant", "user"]
    assert "does not fit the schema" in texts(second)[-1][1]
    row = logged(rig)
    assert (row["repairs"], row["status"], row["assumed"]) == (1, 200, False)
    assert first.usage is not None
    assert second.usage is not None
    assert row["outputTokens"] == first.usage["output_tokens"] + second.usage["output_tokens"]
    assert row["outputTokens"] == answer.json["usage"]["output_tokens"] > 11
    assert 0 < row["costUsd"] <= row["reservedUsd"]


@BOTH
def test_a_stream_shows_only_the_answer_that_fits(rig: Rig, path: str) -> None:
    answer = rig.ask(path, prompt="[[standin schema_bad=1]] who?", schema=SCHEMA, stream=True)
    assert [name for name, _ in answer.events] == ["start", "delta", "done"]
    done = answer.events[-1][1]
    assert answer.events[1][1]["text"] == done["content"][0]["text"]
    assert json.loads(done["content"][0]["text"]) == done["output"]


@BOTH
def test_a_second_miss_is_the_end_with_the_text(rig: Rig, path: str) -> None:
    rig.standin.script(schema_bad=True)
    try:
        answer = rig.ask(path, prompt="who?", schema=SCHEMA)
    finally:
        rig.standin.script()
    assert (answer.status, answer.json["code"]) == (422, "output_mismatch")
    assert json.loads(answer.json["text"])["name"] == 7
    assert "$.name" in answer.json["error"]
    assert len(rig.standin.generations) == 2
    row = logged(rig)
    assert (row["repairs"], row["code"]) == (1, "output_mismatch")
    assert 0 < row["costUsd"] <= row["reservedUsd"]


@BOTH
def test_where_the_reservation_has_no_room_there_is_no_second_call(rig: Rig, path: str) -> None:
    answer = rig.ask(path, prompt="[[standin schema_bad=1 input=1500]] who?", schema=SCHEMA, maxOutputTokens=300)
    assert (answer.status, answer.json["code"]) == (422, "output_mismatch")
    assert len(rig.standin.generations) == 1
    assert logged(rig)["repairs"] == 0


@BOTH
def test_an_answer_in_json_that_is_cut_has_no_output(rig: Rig, path: str) -> None:
    said = encode_text('{"name": "A')
    ask = {"schema": {"type": "object"}, "maxOutputTokens": 256}
    answer = rig.ask(path, prompt=f"[[standin mode=max_tokens text={said}]] who?", **ask)
    assert answer.status == 200, answer.body
    assert (answer.json["stop_reason"], answer.json["output"]) == ("max_tokens", None)
