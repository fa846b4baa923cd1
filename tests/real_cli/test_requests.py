"""What reaches the model: the client's words, once and unchanged, and nothing of the host."""

from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tests.real_cli.conftest import FAKE_KEYS, HOST_FILE, Rig, everything, system_texts, texts
from tests.real_cli.install import binaries
from tests.server.test_generate import PNG

BOTH = pytest.mark.parametrize("path", ["/generate", "/generate-codex"])


@BOTH
def test_the_prompt_arrives_unchanged_and_the_system_prompt_exactly_once(rig: Rig, path: str) -> None:
    prompt = 'Say "hi" — ünïcode 🎉,\n\ttabs, <tags> & $HOME `ls` \\n %s {} /etc'
    answer = rig.ask(path, prompt=prompt, systemPrompt="SYSTEM-4711: be brief.")
    assert answer.status == 200, answer.body
    assert answer.json["content"][0]["text"] == f"ECHO<{prompt}>"
    (sent,) = rig.standin.generations
    assert texts(sent) == [("user", prompt)]
    assert everything(sent).count("SYSTEM-4711") == 1
    assert sum("SYSTEM-4711" in text for text in system_texts(sent)) == 1
    assert not rig.standin.side_traffic


@BOTH
@pytest.mark.parametrize(
    "prompt",
    [
        f"@{HOST_FILE}",
        f"read @{HOST_FILE} please",
        "/help",
        "/cost",
        "/clear",
        "/init",
        "/quit",
        "!ls",
        "#remember this",
        "$imagegen draw a cat",
        "--help",
        "\n\n/help",
    ],
)
def test_a_prompt_is_only_ever_text(rig: Rig, path: str, prompt: str) -> None:
    answer = rig.ask(path, prompt=prompt)
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    assert [text for _, text in texts(sent)] == [prompt]
    said = everything(sent)
    assert "root:x:0" not in said
    assert "imagegen" not in said.replace(prompt, "")


@BOTH
def test_no_tools_no_folder_no_host_and_no_instructions_lying_about(rig: Rig, path: str) -> None:
    assert rig.ask(path, prompt="hello").status == 200
    (sent,) = rig.standin.generations
    assert not sent.body.get("tools")
    said = everything(sent)
    for trace in ("TRAP-7391", str(rig.server.data_dir.parent), "/dev/shm", "cwd", "Debian", "2026-"):
        assert trace not in said, trace


@BOTH
@pytest.mark.parametrize("tool", ["Read", "Bash", "shell", "view_image", "exec_command", "custom:apply_patch"])
def test_a_model_that_asks_for_a_tool_gets_none(rig: Rig, path: str, tool: str) -> None:
    answer = rig.ask(path, prompt=f"[[standin tool={tool}]] hello")
    assert (answer.status, answer.json["code"]) == (422, "cli_bad_output")
    for sent in rig.standin.requests:
        assert "root:x:0" not in everything(sent)
    assert len(rig.standin.generations) == 1


@BOTH
def test_a_conversation_arrives_turn_by_turn(rig: Rig, path: str) -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
        {"role": "user", "content": "five"},
    ]
    answer = rig.ask(path, messages=messages, systemPrompt="S")
    assert answer.json["content"][0]["text"] == "ECHO<five>"
    (sent,) = rig.standin.generations
    assert texts(sent) == [(m["role"], m["content"]) for m in messages]


@BOTH
def test_an_image_arrives_unchanged(rig: Rig, path: str) -> None:
    assert rig.ask(path, prompt="look", images=[PNG]).status == 200
    (sent,) = rig.standin.generations
    assert PNG.partition(",")[2] in everything(sent)
    assert "path=" not in everything(sent)


def photo(megabytes: float, number: int = 0) -> str:
    """A JPEG of 12 million pixels, as a phone makes it."""
    file = io.BytesIO()
    Image.radial_gradient("L").resize((4000, 3000)).convert("RGB").save(file, "JPEG")
    raw = file.getvalue() + bytes([number])
    return "data:image/jpeg;base64," + base64.b64encode(raw.ljust(int(megabytes * 1e6), b"\0")).decode()


@BOTH
def test_large_photos_arrive_while_others_go_on(rig: Rig, path: str) -> None:
    photos = [photo(3.5, number) for number in range(4)]
    with ThreadPoolExecutor() as pool:
        other = pool.submit(rig.ask, path, prompt="[[standin deltas=30 delay=0.1]] other")
        answer = rig.ask(path, prompt="look", images=photos)
        assert (answer.status, other.result().status) == (200, 200), answer.body
    (sent,) = [sent for sent in rig.standin.generations if "other" not in everything(sent)]
    assert all(each.partition(",")[2] in everything(sent) for each in photos)


def test_photos_of_eighteen_megabytes_are_answered_by_codex_as_they_are(rig: Rig) -> None:
    photos = [photo(4.5, number) for number in range(4)]
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "mediaType": "image/jpeg", "data": photos[0].partition(",")[2]}],
        },
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "and these?"},
    ]
    answer = rig.ask("/generate-codex", messages=messages, images=photos[1:])
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    assert all(each.partition(",")[2] in everything(sent) for each in photos)


def test_a_photo_that_anthropic_would_not_take_is_made_smaller_by_claude(rig: Rig) -> None:
    large = photo(4.5)
    answer = rig.ask("/generate", prompt="look", images=[large, PNG])
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    assert large.partition(",")[2] not in everything(sent)
    assert "/9j/" in everything(sent)


@pytest.mark.parametrize("count", [1, 4])
def test_a_large_photo_that_cannot_be_read_is_the_client_s_mistake_and_no_alert(rig: Rig, count: int) -> None:
    # A JPEG by its header, and nothing behind it: the CLI leaves it out.
    frame = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 3000, 4000, 1) + b"\x01\x11\x00"
    made = [frame + bytes([number]) for number in range(count)]
    images = [f"data:image/jpeg;base64,{base64.b64encode(each.ljust(4_500_000, bytes(1))).decode()}" for each in made]
    answer = rig.ask("/generate", prompt="look", images=images)
    assert (answer.status, answer.json["code"]) == (400, "provider_invalid_request"), answer.body
    assert rig.standin.generations == []
    told = rig.server.admin("GET", "/overview").json["alerts"]
    assert not [each for each in told if each["kind"] == "gate_refused"]


def test_a_hostile_answer_of_twenty_megabytes_ends_its_run_only(rig: Rig) -> None:
    with ThreadPoolExecutor() as pool:
        other = pool.submit(rig.ask, "/generate-codex", prompt="[[standin deltas=40 delay=0.1]] other")
        answer = rig.ask("/generate-codex", prompt="[[standin size=20000000 deltas=1]]")
        assert answer.status == 422
        assert other.result().status == 200


@pytest.mark.parametrize(("path", "model"), [("/generate", "claude-haiku-5-5"), ("/generate-codex", "gpt-5.5")])
def test_model_and_effort_of_the_request_are_used(rig: Rig, path: str, model: str) -> None:
    answer = rig.ask(path, prompt="x", model=model, effort="low")
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    assert sent.body["model"] == model
    assert "low" in everything(sent)


def test_claude_is_given_the_output_limit_and_stops_there_with_one_call(rig: Rig) -> None:
    answer = rig.ask("/generate", prompt="[[standin long=1]] go on", maxOutputTokens=300)
    assert answer.status == 200, answer.body
    assert answer.json["stop_reason"] == "max_tokens"
    assert answer.json["usage"]["output_tokens"] == 300
    (sent,) = rig.standin.generations
    assert sent.body["max_tokens"] == 300


@BOTH
def test_the_output_limit_goes_up_and_an_answer_that_it_cuts_is_whole(rig: Rig, path: str) -> None:
    answer = rig.ask(path, prompt="[[standin words=5000 deltas=100]] go", maxOutputTokens=300)
    assert answer.status == 200, answer.body
    assert answer.json["stop_reason"] == "max_tokens"
    assert answer.json["content"][0]["text"].split() == ["word"] * 300
    assert answer.json["usage"]["output_tokens"] == 300
    (sent,) = rig.standin.generations
    assert {sent.body.get("max_tokens"), sent.body.get("max_output_tokens")} == {300, None}


@BOTH
def test_usage_and_cost_are_the_providers_own(rig: Rig, path: str) -> None:
    answer = rig.ask(path, prompt="[[standin input=1000 cached=400 output=50]] x")
    usage = answer.json["usage"]
    assert usage["output_tokens"] == 50
    assert answer.json["cost_usd"] > 0
    if path == "/generate":
        assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (1000, 400)
    else:
        assert (usage["input_tokens"], usage["cached_input_tokens"]) == (1000, 400)


@BOTH
def test_a_stream_brings_the_text_as_it_is_made(rig: Rig, path: str) -> None:
    answer = rig.ask(path, prompt="[[standin deltas=20 delay=0.02]] hello there", stream=True)
    deltas = [data["text"] for name, data in answer.events if name == "delta"]
    assert len(deltas) > 5
    assert "".join(deltas) == answer.events[-1][1]["content"][0]["text"]


@pytest.mark.parametrize(
    "name", ["opus", "sonnet", "haiku", "fable", "best", "Opus[1m]", "claude-opus-4-1", "claude-opus-4-20250514"]
)
def test_a_short_or_retired_name_is_what_the_cli_itself_takes_it_for(rig: Rig, tmp_path: Path, name: str) -> None:
    answer = rig.ask("/generate", prompt="hi", model=name)
    assert answer.status == 200, answer.body
    command = [str(binaries().claude), "-p", "--bare", "--tools", "", f"--model={name}", "hi"]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "ANTHROPIC_API_KEY": FAKE_KEYS["ANTHROPIC_API_KEY"],
        "ANTHROPIC_BASE_URL": rig.standin.url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    subprocess.run(
        command, env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
    )
    ours, own = (sent.body["model"] for sent in rig.standin.generations)
    assert ours == own == answer.json["model"]
    line = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    assert (line["model"].removesuffix("[1m]"), line["alias"]) == (own, name)


#: A generation that thinks by a budget, which must lie below the longest answer, and one that thinks where it is asked.
ASKED = ("claude-haiku-4-5", "claude-sonnet-4-5-20250929", "claude-opus-4-5", "claude-sonnet-4-6", "claude-opus-4-7")
#: Those that think by themselves, as much as they see fit.
UNASKED = ("claude-opus-5", "claude-sonnet-5", "claude-fable-5", "claude-opus-5-5", "claude-sonnet-5-5")
MODELS = ASKED + UNASKED


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("limit", [1, 300, 1023, 1024, 1025, 8000])
def test_no_model_is_told_to_think_unasked_and_every_one_takes_a_short_answer(rig: Rig, model: str, limit: int) -> None:
    answer = rig.ask("/generate", prompt="hi", model=model, maxOutputTokens=limit)
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    assert sent.body["max_tokens"] == limit
    kind = (sent.body.get("thinking") or {"type": "disabled"})["type"]
    assert kind == ("adaptive" if model in UNASKED else "disabled")
    assert "effort" not in (sent.body.get("output_config") or {})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("effort", ["low", "high"])
@pytest.mark.parametrize("limit", [300, 1024, 1025, 2000, 8000])
def test_an_effort_is_always_one_that_the_api_takes(rig: Rig, model: str, effort: str, limit: int) -> None:
    answer = rig.ask("/generate", prompt="hi", model=model, maxOutputTokens=limit, effort=effort)
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    assert sent.body["max_tokens"] == limit


@pytest.mark.parametrize("limit", [1, 15, 16, 17])
def test_codex_asks_for_no_less_than_its_api_takes(rig: Rig, limit: int) -> None:
    answer = rig.ask("/generate-codex", prompt="hi", maxOutputTokens=limit)
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    assert sent.body["max_output_tokens"] == max(16, limit)


@pytest.mark.parametrize("model", ["gpt-6-sol", "gpt-5.4", "gpt-made-up"])
def test_nothing_goes_up_unasked_that_changes_an_answer_of_codex(rig: Rig, model: str) -> None:
    answer = rig.ask("/generate-codex", prompt="hi", model=model)
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    assert "verbosity" not in (sent.body.get("text") or {})
    assert "summary" not in (sent.body.get("reasoning") or {})


@pytest.mark.parametrize("verbosity", ["low", "medium", "high"])
def test_a_verbosity_that_is_asked_for_goes_up_to_codex(rig: Rig, verbosity: str) -> None:
    body = {"model": "gpt-6-sol", "messages": [{"role": "user", "content": "hi"}], "verbosity": verbosity}
    answer = rig.server.call("POST", "/v1/chat/completions", body, key=rig.key, timeout_s=120)
    assert answer.status == 200, answer.body
    body = {"model": "gpt-6-sol", "input": "hi", "text": {"verbosity": verbosity}}
    answer = rig.server.call("POST", "/v1/responses", body, key=rig.key, timeout_s=120)
    assert answer.status == 200, answer.body
    assert answer.json["text"]["verbosity"] == verbosity
    assert [sent.body["text"]["verbosity"] for sent in rig.standin.generations] == [verbosity] * 2
