"""The conversation with `claude -p`: its command line, what is written to it, and what its lines mean.

Pure: values in, values out. Protocol facts are those of Claude Code 2.1.332, the version pinned in
deploy/clis and exercised by tests/real_cli; see docs/clis.md for what was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from bridge.clock import iso
from bridge.errors import Problem
from bridge.providers.assembly import Assembly
from bridge.providers.claude_body import OUTPUT_TOOL, ClaudeAsked, blocks
from bridge.providers.websearch import TOOL as SEARCH_TOOL
from bridge.providers.websearch import citation, claude_search
from bridge.types import (
    DECLINED,
    Activity,
    Answer,
    Completed,
    Event,
    Failed,
    GenerationRequest,
    Message,
    PartDelta,
    Text,
    Thought,
    Usage,
    content_of,
)

SETTINGS_REQUEST, REWIND_REQUEST = "settings", "rewind"
"""request_ids of the control requests whose success must be seen: before the prompt is sent, and after its answer."""

#: effort as clients say it -> effortLevel of the CLI's flag settings. Where nobody asks for one, the API's own is high,
#: and the CLI would say another of some models. Source: Anthropic's page on effort.
EFFORTS = {
    "none": "high",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}

#: What the CLI notes at its first start in a new home. Where it finds it there, it boots with 8% less work (43 of
#: 536 ms of CPU). Nothing of it is sent anywhere; another version may note more, and then does so again.
FIRST_START = (
    b'{"firstStartTime":"2026-01-01T00:00:00.000Z","firstStartVersion":"2.1.332","machineID":"%s",'
    b'"opusProMigrationComplete":true,"seenNotifications":{},"hasResetAutoModeOptInForDefaultOffer":true,'
    b'"migrationVersion":15}' % (b"0" * 64)
)

_FIELDS = {"session_id", "type", "uuid"}
_OF_TURN = {*_FIELDS, "user_message_uuid", "user_message_uuids"}
_OF_SYSTEM = {*_OF_TURN, "subtype"}
#: Lines that 2.1.329 to 2.1.332 print, by type and subtype -> their fields.
_KNOWN: dict[str, set[str]] = {
    "assistant": {
        *_OF_TURN,
        *("message", "parent_tool_use_id", "timestamp", "request_id", "aborted", "error", "is_api_error_message"),
        *("api_error", "api_error_status", "api_error_type", "thinking_display", "thinking_duration_ms"),
        "tool_use_meta",
    },
    "user": {*_OF_TURN, "message", "parent_tool_use_id", "timestamp", "tool_use_result"},
    "stream_event": {
        *_OF_TURN,
        *("event", "parent_tool_use_id", "api_message_id", "ttft_ms", "thinking_display", "abandoned_blocks"),
        "owed_rows",
    },
    "result": {
        *_OF_SYSTEM,
        *("is_error", "result", "errors", "num_turns", "stop_reason", "terminal_reason", "usage", "modelUsage"),
        *("api_error", "api_error_status", "api_error_type", "total_cost_usd", "duration_ms", "duration_api_ms"),
        *("ttft_ms", "ttft_stream_ms", "first_content_frame_ms", "time_to_request_ms", "queued_turn_count"),
        *("result_index", "safety_stops", "fast_mode_state", "fast_mode_disabled_reason", "permission_denials"),
        *("begun_message_ids", "model_usage_since_last_result", "subagent_stats"),
    },
    "command_lifecycle": {*_FIELDS, "command_uuid", "state"},
    "control_response": {"type", "response"},
    "rate_limit_event": {*_FIELDS, "rate_limit_info"},
    "system/init": {
        *_OF_SYSTEM,
        *("additional_directories", "analytics_disabled", "apiKeySource", "claude_code_version", "cwd", "view_mode"),
        *("fast_mode_state", "fast_mode_disabled_reason", "mcp_servers", "messaging_socket_path", "model", "tools"),
        *("original_cwd", "output_style", "per_turn_effort_active", "permissionMode", "product_feedback_disabled"),
        *("served_by_anthropic", "ultrathink_available", "ultrathink_typed_raises", "agents", "capabilities"),
        *("plugins", "sandbox_enabled", "skills", "slash_commands", "memory_paths"),
    },
    "system/status": {*_OF_SYSTEM, "status"},
    "system/ui_invalidate": {*_OF_SYSTEM, "event"},
    "system/thinking_tokens": {*_OF_SYSTEM, "estimated_tokens", "estimated_tokens_delta"},
    "system/model_refusal_no_fallback": {
        *_OF_SYSTEM,
        *("api_refusal_category", "api_refusal_explanation", "content", "original_model", "request_id"),
        "refused_user_message_uuid",
    },
}

#: More than this of any kind of token is a lie.
MOST_TOKENS = 10**8

#: The longest that a limit lasts, in seconds; more is a lie.
LONGEST_RESET_S = 8 * 86400.0

#: Words of the CLI for a request that was never sent: nobody there, or no credentials.
_NEVER_SENT = ("ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "Not logged in")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def arguments(model: str, *, gated: bool) -> list[str]:
    """The command line of a process that generates text and can do nothing else.

    `gated` is for API keys, whose calls go through the gate. --bare closes file mentions, CLAUDE.md and the environment
    block at once; a subscription log-in does not work with it, and the other closures stay. The gate lets one call of
    each run pass; without it, a budget has to end the run.
    """
    return [
        "-p",
        *("--input-format", "stream-json", "--output-format", "stream-json"),
        "--verbose",
        "--include-partial-messages",
        *(["--bare"] if gated else []),
        *("--system-prompt", ""),
        *("--tools", ""),
        "--strict-mcp-config",
        *("--setting-sources", ""),
        "--no-session-persistence",
        "--disable-slash-commands",
        # One call of the model for each prompt, kept by the CLI itself: without these it asks again, and
        # pays again, after max_tokens, an empty answer, a schema miss or a tool call. The budget is looked
        # at after each call, so the smallest one ends every run after the first, with its cost. It counts
        # over the life of the process, so one that serves many runs can have none.
        *("--max-turns", "1"),
        *([] if gated else ["--max-budget-usd", "0.0000001"]),
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


def opening(asked: ClaudeAsked) -> bytes:
    """What a warm process is told before the prompt: the system prompt, then thinking, model, limits, and what the
    body gets besides.

    The system prompt must be in the first initialize; a later one is ignored. The output limit goes
    in as an environment setting, which is enforced upstream as max_tokens.
    """
    initialize = {"subtype": "initialize", "systemPrompt": [asked.request.system]}
    env = {"CLAUDE_CODE_EXTRA_BODY": _encode(asked.body).decode()} if asked.body else {}
    return _control("initialize", initialize) + _settings(asked, env)


def gated_opening() -> bytes:
    """What a gated process is told once. Its system prompt is empty: each run's own goes into the body."""
    return _control("initialize", {"subtype": "initialize", "systemPrompt": [""]})


def gated_settings(asked: ClaudeAsked, *, token: str, url: str, cached: bool) -> bytes:
    """What a gated process is told before each run; every setting each time, since they stay in force.

    The merge of CLAUDE_CODE_EXTRA_BODY is shallow and last: its `system` takes the place of the CLI's own blocks. All
    else that the body gets is put in by the gate. `cached`: whether the prompt is marked to be cached, which costs a
    quarter more and pays only where it is sent again.
    """
    request = asked.request
    system: list[dict[str, Any]] = [{"type": "text", "text": request.system}] if request.system else []
    if cached and system:
        system[0]["cache_control"] = {"type": "ephemeral"}
    env = {
        "ANTHROPIC_API_KEY": token,
        "ANTHROPIC_BASE_URL": url,
        "CLAUDE_CODE_EXTRA_BODY": _encode({"system": system, "tools": []}).decode(),
        "DISABLE_PROMPT_CACHING": "0" if cached else "1",
    }
    return _settings(asked, env)


def _settings(asked: ClaudeAsked, env: dict[str, str]) -> bytes:
    request = asked.request
    env = {**env, "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(request.max_output_tokens)}
    effort = EFFORTS[request.effort or "none"]
    thinking = {"subtype": "set_max_thinking_tokens", "max_thinking_tokens": asked.thinking_tokens}
    settings = {"model": request.model, "effortLevel": effort, "env": env}
    return _control("thinking", thinking) + _control(
        SETTINGS_REQUEST, {"subtype": "apply_flag_settings", "settings": settings}
    )


def rewind(mark: str) -> bytes:
    """Take the last message of the user that is left, and what follows it, out of the conversation of a process; any
    other is `stale_target`, or of an assistant `target_not_found`. Ends with an answer to REWIND_REQUEST."""
    return _control(REWIND_REQUEST, {"subtype": "rewind_conversation", "target_message_uuid": mark})


def history(request: GenerationRequest, marks: Iterable[str] = ()) -> list[tuple[bytes, bool]]:
    """The earlier messages, each with whether the CLI acknowledges it with a result of its own.

    Lines that are sent before the acknowledgement of the one before are merged in the wrong order. `marks`: a uuid for
    each message of the user, to `rewind` to, from the last to the first.
    """
    left = iter(marks)
    return [
        (_assistant_line(message, request.model), False)
        if message.role == "assistant"
        else (_user_line(message, query=False, mark=next(left, None)), True)
        for message in request.messages[:-1]
    ]


def prompt(request: GenerationRequest, mark: str | None = None) -> bytes:
    """The message that is to be answered; `mark`: a uuid to `rewind` to."""
    return _user_line(request.messages[-1], query=True, mark=mark)


def _control(request_id: str, request: dict[str, Any]) -> bytes:
    return _line({"type": "control_request", "request_id": request_id, "request": request})


def _user_line(message: Message, *, query: bool, mark: str | None = None) -> bytes:
    line: dict[str, Any] = {
        "type": "user",
        "message": {"role": "user", "content": blocks(message.content)},
        "parent_tool_use_id": None,
        "session_id": "",
        # Typed by a client, not at a prompt: no slash commands, no file mentions.
        "client_composed": True,
    }
    if not query:
        line["shouldQuery"] = False
    if mark is not None:
        line["uuid"] = mark
    return _line(line)


def _assistant_line(message: Message, model: str) -> bytes:
    said: dict[str, Any] = {"role": "assistant", "content": blocks(message.content)}
    if any(isinstance(part, Thought) for part in message.content):
        # Of another model, it drops them.
        said["model"] = model
    return _line(
        {
            "type": "assistant",
            "message": said,
            "parent_tool_use_id": None,
            "session_id": "",
        }
    )


def _line(value: dict[str, Any]) -> bytes:
    return _encode(value) + b"\n"


# --- what it prints -----------------------------------------------------------------------------


class AnswerParser:
    """Turns what the CLI prints for one prompt into events; `feed` it a line at a time.

    The answer is what was streamed. The result line, the last one, brings the usage of all calls; with
    the budget of `arguments` its own words are an error ("budget exhausted") also for an answer that is complete.
    """

    def __init__(
        self,
        request: GenerationRequest,
        now: Callable[[], float],
        *,
        by_tool: bool = False,
        gated: bool = False,
        note: Callable[[str], None] = lambda what: None,
    ) -> None:
        """`now()` is UTC seconds; `by_tool`: the answer is what the output tool is given; `gated`: the answer is
        whole at the end of the model's message, whatever the CLI does then. `note` gets what is not known here."""
        self._note = note
        self._now = now
        self._gated = gated
        self._by_tool = by_tool
        self._tools = {tool.name for tool in request.tools}
        self._shows_thoughts = request.thoughts is not None
        self._searches = request.web_search is not None
        #: searches that are under way: their ids -> pieces of their arguments
        self._queries: dict[str, list[str]] = {}
        self._model = request.model
        self._assembly = Assembly()
        #: what the output tool is given
        self._json: list[str] = []
        #: the block under way: a name of a tool, the id of its call, and whether it has had arguments; the number of a
        #: thought; the id of a search
        self._tool = self._call = self._thought = self._search = ""
        self._has_arguments = False
        #: whether a tool was asked for that nobody offered
        self._foreign = False
        self._usage: Usage | None = None
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self._refusal: str | None = None
        self._calls = 0
        #: when a used-up subscription is full again, in UTC seconds
        self._resets_at: float | None = None

    def feed(self, line: bytes) -> Iterator[Event]:
        """Events of one line. Lines that are not JSON objects are noise and give nothing."""
        message = json_object(line)
        if message is None:
            return
        for what in unknown_in(message):
            self._note(what)
        kind = message.get("type")
        if kind == "stream_event":
            event = message.get("event")
            if isinstance(event, dict):
                yield from self._stream_event(event)
        elif kind == "result":
            turns = message.get("num_turns")
            if message.get("is_error") is False and not (type(turns) is int and turns > 0):
                problem = Problem("cli_failed", "The CLI answered by itself instead of asking the model.")
                yield Failed(problem, self._usage)
            else:
                yield self._result(message)
        elif kind == "system" and str(message.get("subtype")).startswith("model_refusal"):
            self._refusal = _string(message.get("api_refusal_explanation")) or self._refusal or DECLINED
            yield Activity()
        elif kind == "system" and message.get("status") == "requesting":
            self._calls += 1
            # Whatever made it call the model again, only one call was reserved; the gate lets no other pass.
            again = self._calls > 1 and not self._gated
            yield self._bad("The CLI asked the model a second time.") if again else Activity()
        elif kind == "rate_limit_event":
            # Only with a log-in; an API key's limits are told by nobody.
            resets_at: Any = _mapping(message.get("rate_limit_info")).get("resetsAt")
            known = isinstance(resets_at, int | float) and not isinstance(resets_at, bool)
            if known and 0 < resets_at - self._now() < LONGEST_RESET_S:
                self._resets_at = float(resets_at)
            yield Activity()
        elif kind in ("assistant", "user", "system"):
            yield Activity()

    def _stream_event(self, event: dict[str, Any]) -> Iterator[Event]:
        kind = event.get("type")
        if kind == "content_block_delta":
            yield self._block_delta(_mapping(event.get("delta")))
        elif kind == "content_block_start":
            yield self._block_start(_mapping(event.get("content_block")), str(event.get("index")))
        elif kind == "content_block_stop":
            yield self._block_stop()
        elif kind == "message_start":
            body = _mapping(event.get("message"))
            self._model = _string(body.get("model")) or self._model
            self._usage = usage_of(body.get("usage")) or self._usage
            yield Activity(self._usage)
        elif kind == "message_delta":
            self._usage = usage_of(event.get("usage")) or self._usage
            delta = _mapping(event.get("delta"))
            self._stop_reason = _string(delta.get("stop_reason"))
            self._stop_sequence = _string(delta.get("stop_sequence"))
            if self._stop_reason == "refusal":
                why = _string(_mapping(delta.get("stop_details")).get("explanation"))
                self._refusal = why or self._refusal or DECLINED
            yield Activity(self._usage)
        elif kind == "message_stop" and self._gated:
            yield self._whole()

    def _block_start(self, block: dict[str, Any], number: str) -> Event:
        self._tool = self._call = self._thought = self._search = ""
        kind = block.get("type")
        if self._searches and kind == "server_tool_use" and block.get("name") == SEARCH_TOOL:
            self._search = _string(block.get("id")) or ""
            self._queries[self._search] = []
            return Activity()
        if self._searches and kind == "web_search_tool_result":
            id = _string(block.get("tool_use_id")) or ""
            asked = _mapping(json_object("".join(self._queries.pop(id, ())).encode()))
            return self._assembly.add_search(claude_search(id, _string(asked.get("query")) or "", block.get("content")))
        if self._searches and kind == "text":
            # What is cited belongs to one block.
            return self._assembly.begin_text()
        if self._shows_thoughts and block.get("type") in ("thinking", "redacted_thinking"):
            self._thought = number
            said = [_string(block.get(name)) or "" for name in ("thinking", "signature", "data")]
            return self._assembly.add_thought(number, Thought(*said))
        if block.get("type") != "tool_use":
            return Activity()
        name = _string(block.get("name")) or ""
        if self._by_tool and name == OUTPUT_TOOL:
            self._tool = name
        elif name in self._tools:
            self._tool, self._call, self._has_arguments = name, _string(block.get("id")) or "", False
            return self._assembly.add_call(self._call, name, "")
        else:
            self._foreign = True
        return Activity()

    def _block_delta(self, delta: dict[str, Any]) -> Event:
        kind, text, piece = delta.get("type"), delta.get("text"), delta.get("partial_json")
        if kind == "text_delta" and isinstance(text, str):
            shown = self._assembly.add_text(text)
            # With the output tool the answer is its JSON; words around it are not part of it.
            return Activity() if self._by_tool else shown
        if self._search and kind == "input_json_delta":
            self._queries[self._search].append(_string(piece) or "")
            return Activity()
        cited = citation(delta.get("citation")) if self._searches and kind == "citations_delta" else None
        if cited is not None:
            return self._assembly.cite(cited)
        if self._thought and kind in ("thinking_delta", "signature_delta"):
            said, signature = _string(delta.get("thinking")) or "", _string(delta.get("signature")) or ""
            return self._assembly.add_thought(self._thought, Thought(said, signature))
        if kind != "input_json_delta" or not isinstance(piece, str) or not piece:
            return Activity()
        if self._call:
            self._has_arguments = True
            return self._assembly.add_call(self._call, self._tool, piece)
        if self._tool:
            self._json.append(piece)
            return PartDelta(0, Text(piece))
        return Activity()

    def _block_stop(self) -> Event:
        call, self._call = self._call, ""
        # A call without a word is one without arguments.
        empty = call and not self._has_arguments
        return self._assembly.add_call(call, self._tool, "{}") if empty else Activity()

    def _result(self, result: dict[str, Any]) -> Event:
        spent = model_usage_of(result.get("modelUsage"))
        exhausted = result.get("terminal_reason") == "budget_exhausted"
        complete = exhausted or (result.get("is_error") is False and result.get("subtype") == "success")
        if spent is not None and (self._usage is None or spent.total >= self._usage.total):
            self._usage = spent
        if complete and self._json and self._stop_reason is None:
            # With the budget gone the stop reason is not told; a tool input that ends well is an answer.
            return self._completed()
        if self._refusal is None and (not complete or self._stop_reason is None):
            return self._failure(result)
        return self._whole()

    def _whole(self) -> Event:
        """The end of a message that came to its end."""
        if self._refusal is not None or self._stop_reason == "max_tokens" or self._json:
            return self._completed()
        if self._foreign and not self._by_tool:
            return self._bad("The model asked for a tool that it was not given.")
        # Words instead of the output tool, or nothing: whether they fit the schema is for others to say.
        return self._completed()

    def _failure(self, result: dict[str, Any]) -> Failed:
        """An error that the CLI reports in a result line, often with exit status 0."""
        text = _string(result.get("result")) or ""
        status = result.get("api_error_status")
        reason = result.get("terminal_reason")
        problem = api_problem(status if isinstance(status, int) else None, text, reason)
        if problem.code == "provider_rate_limited" and self._resets_at is not None:
            left_s, facts = max(1.0, self._resets_at - self._now()), {"resets_at": iso(self._resets_at)}
            problem = msgspec.structs.replace(problem, retry_after=left_s, facts=facts)
        if reason == "budget_exhausted":
            problem = Problem("timeout", "Anthropic stopped sending in the middle of the answer.")
        if self._usage is None and (isinstance(status, int) or any(word in text for word in _NEVER_SENT)):
            # Turned away before the message had begun: the result's own figures, zero, are right.
            return Failed(problem, usage_of(result.get("usage")))
        # A stream that broke: it is billed for what it had made, which nobody tells. The CLI says zero also
        # where the connection was lost so early that it had seen nothing of what was made.
        return Failed(problem)

    def _completed(self) -> Completed:
        """The answer: what the model gave to the output tool, or its texts and calls."""
        stop_reason = "refusal" if self._refusal is not None else self._stop_reason or "end_turn"
        if stop_reason == "tool_use" and (self._json or not self._assembly.calls):
            # The output tool is the CLI's way, not the client's.
            stop_reason = "end_turn"
        content = self._assembly.content
        if self._json:
            thoughts = [part for part in content if isinstance(part, Thought)]
            content = (*thoughts, *content_of("".join(self._json)))
        return Completed(
            Answer(
                content=content,
                model=self._model,
                stop_reason=stop_reason,
                usage=self._usage,
                stop_sequence=self._stop_sequence,
                refusal=self._refusal,
            )
        )

    def _bad(self, why: str) -> Failed:
        return Failed(Problem("cli_bad_output", why), self._usage)


def json_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None for anything else, which is noise."""
    try:
        message = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            # A result that says NaN is no JSON, but still the end of the run.
            message = json.loads(line) if b'"result"' in line else None
        except (ValueError, RecursionError):
            return None
    return message if isinstance(message, dict) else None


def unknown_in(message: dict[str, Any]) -> Iterator[str]:
    """What the CLI did not print when it was looked at: a kind of line, or fields of one."""
    kind = str(message.get("type"))
    if kind == "system":
        kind = f"system/{message.get('subtype')}"
    fields = _KNOWN.get(kind)
    if fields is None:
        yield kind
    elif not message.keys() <= fields:
        yield from (f"{kind}.{name}" for name in sorted(message.keys() - fields))


def is_result(line: bytes) -> bool:
    """Whether a line is the end of a turn, also of a silent one."""
    message = json_object(line)
    return message is not None and message.get("type") == "result"


def control_answer(line: bytes) -> tuple[str, bool] | None:
    """(request_id, whether it succeeded, and rewound where it was to) where a line answers a control request; None
    where not."""
    message = json_object(line)
    if message is None or message.get("type") != "control_response":
        return None
    response = message.get("response")
    if not isinstance(response, dict):
        return None
    rewound = _mapping(response.get("response")).get("rewound", True)
    return str(response.get("request_id")), response.get("subtype") == "success" and rewound is True


def usage_of(raw: Any) -> Usage | None:
    """Usage as the Messages API reports it; None where it is missing or makes no sense."""
    if not isinstance(raw, dict):
        return None
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    counts = [raw.get(name) or 0 for name in names]
    if not all(type(count) is int and 0 <= count <= MOST_TOKENS for count in counts):
        return None
    details = raw.get("output_tokens_details")
    thinking = details.get("thinking_tokens") if isinstance(details, dict) else 0
    fresh, read, written, output = counts
    return Usage(fresh, read, written, output, thinking if type(thinking) is int and thinking > 0 else 0)


def model_usage_of(raw: Any) -> Usage | None:
    """Usage over all models of a result's `modelUsage`; None where it is missing or makes no sense."""
    if not isinstance(raw, dict) or not raw:
        return None
    names = ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens", "outputTokens", "thinkingTokens")
    sums = [0] * len(names)
    for counts in raw.values():
        if not isinstance(counts, dict):
            return None
        for place, name in enumerate(names):
            count = counts.get(name) or 0
            if type(count) is not int or not 0 <= count <= MOST_TOKENS:
                return None
            sums[place] += count
    return Usage(*sums)


def api_problem(status: int | None, text: str, terminal_reason: Any) -> Problem:
    """The bridge's words for what the CLI says of the API. The API's own words stay out of it where
    they could name the operator's account."""
    if "Not logged in" in text or "/login" in text:
        return Problem("cli_unavailable", "The claude CLI is not logged in.")
    if status in (401, 403):
        return Problem("cli_unavailable", "Anthropic did not accept the bridge's credentials.")
    if status == 429:
        return Problem("provider_rate_limited", "Anthropic limits the rate of this account now.")
    if status in (503, 529) or "overloaded" in text.lower():
        return Problem("provider_overloaded", "Anthropic is overloaded at the moment.")
    if status == 404:
        return Problem("model_not_found", "Anthropic does not know this model.")
    if status == 413 or "prompt is too long" in text.lower():
        return Problem("prompt_too_long", "The prompt is too long for this model.")
    if status == 400:
        return Problem("provider_invalid_request", "Anthropic did not accept the request.")
    if terminal_reason == "stream_idle_timeout" or "idle timeout" in text.lower():
        return Problem("timeout", "Anthropic stopped sending in the middle of the answer.")
    if "timed out" in text.lower() or "timeout" in text.lower():
        return Problem("timeout", "Anthropic did not answer in time.")
    return Problem("cli_failed", "The claude CLI could not get an answer from Anthropic.")


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
