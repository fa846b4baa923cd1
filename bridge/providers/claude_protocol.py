"""The stream-json conversation with `claude -p`: its command line, and the lines that are written to it.

Pure: values in, values out. Protocol facts are those of Claude Code 2.1.329, the version pinned in
deploy/clis and exercised by tests/real_cli; see docs/clis.md for what was measured.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from bridge.providers.claude_answer import json_object
from bridge.types import GenerationRequest, Image, Message, Text

SETTINGS_REQUEST = "settings"
"""request_id of the control request whose success must be seen before the prompt is sent."""

#: effort as clients say it -> effortLevel of the CLI's flag settings
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}

#: What the CLI notes at its first start in a new home. Where it finds it there, it boots with 8% less work (43 of
#: 536 ms of CPU). Nothing of it is sent anywhere; another version may note more, and then does so again.
FIRST_START = (
    b'{"firstStartTime":"2026-01-01T00:00:00.000Z","firstStartVersion":"2.1.329","machineID":"%s",'
    b'"opusProMigrationComplete":true,"seenNotifications":{},"hasResetAutoModeOptInForDefaultOffer":true,'
    b'"migrationVersion":15}' % (b"0" * 64)
)

_encode = msgspec.json.Encoder().encode


def arguments(model: str, *, bare: bool) -> list[str]:
    """The command line of a process that generates text and can do nothing else.

    `bare` is for API keys: it closes file mentions, CLAUDE.md and the environment block at once. A
    subscription log-in does not work with it; the other closures stay.
    """
    return [
        "-p",
        *("--input-format", "stream-json", "--output-format", "stream-json"),
        "--verbose",
        "--include-partial-messages",
        *(["--bare"] if bare else []),
        *("--system-prompt", ""),
        *("--tools", ""),
        "--strict-mcp-config",
        *("--setting-sources", ""),
        "--no-session-persistence",
        "--disable-slash-commands",
        # One call of the model for each prompt, kept by the CLI itself: without these it asks again, and
        # pays again, after max_tokens, an empty answer, a schema miss or a tool call. The budget is looked
        # at after each call, so the smallest one ends every run after the first, with its cost.
        *("--max-turns", "1"),
        *("--max-budget-usd", "0.0000001"),
        f"--model={model}",
    ]


def environment(*, timeout_s: float, idle_timeout_s: float, max_output_tokens: int) -> dict[str, str]:
    """The switches that close side traffic, retries, file mentions and endless waiting."""
    return {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
        # Its runtime optimizes code that will not run for long enough: 10% of the CPU time of a short answer,
        # 17% of one in 2,000 pieces, and 10 MB.
        "BUN_JSC_useDFGJIT": "0",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
        "CLAUDE_CODE_DISABLE_REFUSAL_RETRY": "1",
        "API_TIMEOUT_MS": str(math.ceil(timeout_s * 1000)),
        "CLAUDE_ENABLE_BYTE_WATCHDOG": "1",
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": str(math.ceil(idle_timeout_s * 1000)),
        "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
        "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
        "CLAUDE_CODE_DISABLE_CLAUDE_MDS": "1",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(max_output_tokens),
    }


def opening(request: GenerationRequest) -> bytes:
    """What a warm process is told before the prompt: system prompt and schema, then model and limits.

    The system prompt must be in the first initialize; a later one is ignored. The output limit goes
    in as an environment setting, which is enforced upstream as max_tokens.
    """
    initialize: dict[str, Any] = {"subtype": "initialize", "systemPrompt": [request.system]}
    if request.schema is not None:
        initialize["jsonSchema"] = request.schema
    settings: dict[str, Any] = {
        "model": request.model,
        "env": {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(request.max_output_tokens)},
    }
    if request.effort is not None:
        settings["effortLevel"] = EFFORTS[request.effort]
    return _line({"type": "control_request", "request_id": "initialize", "request": initialize}) + _line(
        {
            "type": "control_request",
            "request_id": SETTINGS_REQUEST,
            "request": {"subtype": "apply_flag_settings", "settings": settings},
        }
    )


def history(request: GenerationRequest) -> list[tuple[bytes, bool]]:
    """The earlier messages, each with whether the CLI acknowledges it with a result of its own.

    Lines that are sent before the acknowledgement of the one before are merged in the wrong order.
    """
    return [
        (_assistant_line(message), False) if message.role == "assistant" else (_user_line(message, query=False), True)
        for message in request.messages[:-1]
    ]


def prompt(request: GenerationRequest) -> bytes:
    """The message that is to be answered."""
    return _user_line(request.messages[-1], query=True)


def is_result(line: bytes) -> bool:
    """Whether a line is the end of a turn, also of a silent one."""
    message = json_object(line)
    return message is not None and message.get("type") == "result"


def _user_line(message: Message, *, query: bool) -> bytes:
    line: dict[str, Any] = {
        "type": "user",
        "message": {"role": "user", "content": _blocks(message)},
        "parent_tool_use_id": None,
        "session_id": "",
        # Typed by a client, not at a prompt: no slash commands, no file mentions.
        "client_composed": True,
    }
    if not query:
        line["shouldQuery"] = False
    return _line(line)


def _assistant_line(message: Message) -> bytes:
    return _line(
        {
            "type": "assistant",
            "message": {"role": "assistant", "content": _blocks(message)},
            "parent_tool_use_id": None,
            "session_id": "",
        }
    )


def _blocks(message: Message) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for part in message.content:
        if isinstance(part, Image):
            source = {"type": "base64", "media_type": part.media_type, "data": part.data}
            blocks.append({"type": "image", "source": source})
        elif isinstance(part, Text):
            blocks.append({"type": "text", "text": part.text})
    return blocks


def _line(value: dict[str, Any]) -> bytes:
    return _encode(value) + b"\n"


def control_answer(line: bytes) -> tuple[str, bool] | None:
    """(request_id, whether it succeeded) where a line answers a control request; None where not."""
    message = json_object(line)
    if message is None or message.get("type") != "control_response":
        return None
    response = message.get("response")
    if not isinstance(response, dict):
        return None
    return str(response.get("request_id")), response.get("subtype") == "success"
