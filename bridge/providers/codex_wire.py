"""The conversation with `codex app-server`: configuration, requests, and what its messages mean.

Pure: values in, values out. Protocol facts are those of codex-cli 0.171.0, the version pinned in
deploy/clis and exercised by tests/real_cli; see docs/clis.md for what was measured. The protocol has
calls that read files and run commands: nothing of a client's JSON ever becomes a method, a `config`
value or a path here, only text, image data, a model name, and a schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from bridge.errors import Problem
from bridge.providers.codex_body import CodexAsked, items
from bridge.types import GenerationRequest, Image, Message, Text, ToolResult, Usage

#: effort as clients say it -> effort of a turn
EFFORTS = {
    "none": "none",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "xhigh",
}
#: Name of the environment variable that hands the API key to the CLI.
KEY_VARIABLE = "BRIDGE_CODEX_API_KEY"

_NO_END = 100_000_000

_FEATURES_OFF = (
    "apps",
    "plugins",
    "remote_plugin",
    "hooks",
    "shell_tool",
    "unified_exec",
    "multi_agent",
    "multi_agent_v2",
    "goals",
    "image_generation",
    "view_image",
    "tool_suggest",
    "skill_search",
    "sleep_tool",
    "browser_use",
    "computer_use",
    "in_app_browser",
    "shell_snapshot",
    "skill_mcp_dependency_install",
    "guardian_approval",
    "code_mode_host",
    "workspace_dependencies",
    "mentions_v2",
    "daemon_auto_start",
    "fast_mode",
    "auth_elicitation",
    "tool_call_mcp_elicitation",
    "api_key_model_discovery",
    "memories",
    "unbounded_connection_retries",
)

_LEAN = {
    "web_search": "disabled",
    "project_doc_max_bytes": 0,
    "history.persistence": "none",
    "analytics.enabled": False,
    "check_for_update_on_startup": False,
    "include_permissions_instructions": False,
    "include_apps_instructions": False,
    "include_environment_context": False,
    "include_collaboration_mode_instructions": False,
    "skills.include_instructions": False,
    "skills.bundled.enabled": False,
    "feedback.enabled": False,
    "otel.exporter": "none",
    "notify": [],
    "agents.enabled": False,
    # Threads without a listener leave memory at once instead of piling up.
    "thread_unload_delay_secs": 0,
}


_TURN = {"threadId", "turnId"}
#: What 0.169 to 0.171 say without being asked, by method -> the fields. Its warnings are none of them.
_KNOWN: dict[str, set[str]] = {
    "error": {*_TURN, "error", "willRetry"},
    "item/agentMessage/delta": {*_TURN, "itemId", "delta"},
    "item/completed": {*_TURN, "item", "completedAtMs", "contentTokenCount"},
    "item/tool/call": _TURN,
    "rawResponse/completed": {*_TURN, "responseId", "usage", "usageMetadata"},
    "rawResponseItem/completed": {*_TURN, "item"},
    "thread/closed": {"threadId"},
    "thread/settings/updated": {"threadId", "threadSettings"},
    "thread/tokenUsage/updated": {*_TURN, "tokenUsage"},
    "turn/completed": {"threadId", "turn"},
}


#: A certificate that nobody has the key of. With the system's own, the app-server reads all of them again for each turn
#: (14 ms instead of 26 to 31 measured); behind the gate it speaks TLS to nobody.
ONE_CERTIFICATE = b"""\
-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUWJ/J/ZmVwxx1w+bddLRP1W4Kk4AwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyODA3MTEwMVoYDzIxMjYxMTA0MDcx
MTAxWjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQjVU/6Q103vVUhFy7zzVAMn55TdUPfl3FRnC1GZhwXvBBmCVEZepawAk6MeHmL
X52iB7pEuTopmp81iUslt7z7o1MwUTAdBgNVHQ4EFgQUbFsaowxih+h8qhOD1v/s
dWjas6kwHwYDVR0jBBgwFoAUbFsaowxih+h8qhOD1v/sdWjas6kwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiAaRXkksteY5brl8U8jMv7HoX6OYKNk
21uVD4ZO+OWJvgIhAMv8dRSajhf5lXIsVGecbcLKuZGvkf3iB/fmPnF5iuSl
-----END CERTIFICATE-----
"""


def arguments(
    *, base_url: str | None, idle_timeout_s: float, catalog: str, sqlite_home: str, machine_servers: Sequence[str] = ()
) -> list[str]:
    """The command line of an app-server that generates text and can do nothing else.

    `machine_servers` are the MCP servers that the machine's configuration has for everybody: each is switched off by
    its name, since nothing takes all of them away. `base_url` None means the CLI's own log-in (auth.json). A custom
    provider, since the built-in one ignores the base URL and cannot be bounded in retries.
    """
    config: dict[str, Any] = {
        **_LEAN,
        **{f"features.{name}": False for name in _FEATURES_OFF},
        **{f"mcp_servers.{name}.enabled": False for name in machine_servers},
        "model_catalog_json": catalog,
        "sqlite_home": sqlite_home,
        "model_provider": "bridge",
        "model_providers.bridge.name": "bridge",
        "model_providers.bridge.wire_api": "responses",
        "model_providers.bridge.request_max_retries": 0,
        "model_providers.bridge.stream_max_retries": 0,
        "model_providers.bridge.stream_idle_timeout_ms": int(idle_timeout_s * 1000),
    }
    if base_url is None:
        config["model_providers.bridge.requires_openai_auth"] = True
    else:
        config["model_providers.bridge.base_url"] = base_url
        config["model_providers.bridge.env_key"] = KEY_VARIABLE
    argv = ["app-server", "--strict-config", "-c", "tools.experimental_request_user_input={enabled=false}"]
    for name, value in config.items():
        # TOML takes JSON's strings, numbers and booleans as they are.
        argv += ["-c", f"{name}={json.dumps(value)}"]
    return argv


def server_names(listed: str) -> list[str]:
    """The names in the answer of `codex mcp list --json`; none where it is not such an answer."""
    try:
        names = [server["name"] for server in json.loads(listed)]
    except (ValueError, KeyError, TypeError):
        return []
    return [name for name in names if re.fullmatch(r"[\w-]+", name, re.ASCII)]


def catalog_without_tools(catalog: dict[str, Any]) -> dict[str, Any]:
    """`codex debug models` with every tool taken out.

    Feature flags alone leave tools in the request; only a catalog without them empties it. The long
    instructions go too: 38 kB of prompt become 1.8 kB.
    """
    models = [
        {
            **model,
            "apply_patch_tool_type": None,
            "shell_type": "disabled",
            "tool_mode": None,
            "multi_agent_version": None,
            "experimental_supported_tools": [],
            "supports_search_tool": False,
            # Too long a conversation is the provider's own error, and never a second call that sums it up.
            "context_window": _NO_END,
            "max_context_window": _NO_END,
            # As the API does it where nothing is asked for.
            "default_verbosity": "medium",
            # Tools as the API has them, in parallel; results of theirs are not cut.
            "use_responses_lite": False,
            "truncation_policy": {"mode": "bytes", "limit": _NO_END},
            "default_reasoning_summary": "none",
            "model_messages": None,
            "base_instructions": "Answer the user.",
        }
        for model in catalog["models"]
    ]
    return {**catalog, "models": models}


def initialize(version: str) -> dict[str, Any]:
    """Parameters of the first request. Notifications that are not read are opted out of."""
    return {
        "clientInfo": {"name": "cli-bridge", "title": None, "version": version},
        "capabilities": {
            "experimentalApi": True,
            "requestAttestation": False,
            "optOutNotificationMethods": [
                "thread/started",
                "thread/status/changed",
                "turn/started",
                "item/started",
                "remoteControl/status/changed",
                "account/rateLimits/updated",
            ],
        },
    }


def thread_start(asked: CodexAsked, cwd: str) -> dict[str, Any]:
    """Parameters of thread/start: one throw-away thread without environments, and with no tools but the client's.

    Empty base instructions with developer instructions give exactly one system message upstream, on
    every kind of model.
    """
    params = {
        "model": asked.request.model,
        "cwd": cwd,
        "approvalPolicy": "never",
        "sandbox": "read-only",
        "ephemeral": True,
        "environments": [],
        "dynamicTools": asked.dynamic_tools,
        "baseInstructions": "",
        "developerInstructions": asked.request.system,
    }
    # They repeat the whole prompt, but nothing else says what a call is to the character, and that it is the last; nor
    # what a text cites.
    raw = asked.calls or asked.request.web_search is not None
    return {**params, "experimentalRawEvents": True} if raw else params


def history(request: GenerationRequest, thread_id: str) -> dict[str, Any] | None:
    """Parameters of thread/inject_items, or None for a conversation of one message: all but the words and images of
    the last message, which `turn_start` has."""
    last = Message("user", tuple(part for part in request.messages[-1].content if isinstance(part, ToolResult)))
    found = items([*request.messages[:-1], last])
    return {"threadId": thread_id, "items": found} if found else None


def turn_start(request: GenerationRequest, thread_id: str) -> dict[str, Any]:
    """Parameters of turn/start: what the last message says, and the schema and effort of its answer."""
    params: dict[str, Any] = {
        "threadId": thread_id,
        "input": [_input(part) for part in request.messages[-1].content if isinstance(part, Text | Image)],
    }
    if request.schema is not None:
        params["outputSchema"] = request.schema
    if request.effort is not None:
        params["effort"] = EFFORTS[request.effort]
    if request.thoughts is not None:
        params["summary"] = request.thoughts
    return params


def _input(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text, "text_elements": []}
    # Never localImage: it names the host's path upstream.
    return {"type": "image", "url": part.address}


def usage_of(raw: Any) -> Usage | None:
    """Usage of `tokenUsage.last`; None where it is missing or makes no sense.

    There, cached is a part of input and reasoning a part of output.
    """
    if not isinstance(raw, dict):
        return None
    names = (
        "inputTokens",
        "cachedInputTokens",
        "cacheWriteInputTokens",
        "outputTokens",
        "reasoningOutputTokens",
    )
    counts = [raw.get(name) or 0 for name in names]
    if not all(type(count) is int and 0 <= count <= 10**8 for count in counts):
        return None
    total_input, cached, written, output, reasoning = counts
    # After an answer that was cut or too long a prompt all figures are zero; that is not a usage.
    if cached + written > total_input or not (total_input or output):
        return None
    return Usage(total_input - cached - written, cached, written, output, min(reasoning, output))


def turn_problem(error: Any) -> Problem:
    """The bridge's words for a failed turn. The provider's own words stay out of it."""
    info = error.get("codexErrorInfo") if isinstance(error, dict) else None
    message = str(error.get("message") or "") if isinstance(error, dict) else ""
    status = None
    if isinstance(info, dict):
        details = next(iter(info.values()), None)
        status = details.get("httpStatusCode") if isinstance(details, dict) else None
    if status in (401, 403) or info == "unauthorized":
        return Problem("cli_unavailable", "OpenAI did not accept the bridge's credentials.")
    if status == 429 or info == "rateLimitExceeded":
        return Problem("provider_rate_limited", "OpenAI limits the rate of this account now.")
    if info == "usageLimitExceeded":
        return Problem("provider_rate_limited", "The quota of the bridge's OpenAI account is used up.")
    if info in ("serverOverloaded", "internalServerError") or status in (500, 502, 503, 504, 529):
        return Problem("provider_overloaded", "OpenAI is overloaded at the moment.")
    if info == "modelNotFound" or status == 404:
        return Problem("model_not_found", "OpenAI does not know this model.")
    if info == "contextWindowExceeded":
        return Problem("prompt_too_long", "The prompt is too long for this model.")
    if "idle timeout" in message:
        return Problem("timeout", "OpenAI stopped sending in the middle of the answer.")
    if message.startswith('{"error"'):
        return Problem("provider_invalid_request", "OpenAI did not accept the request.")
    return Problem("cli_failed", "The codex CLI could not get an answer from OpenAI.")


def hit_max_tokens(error: Any) -> bool:
    """Whether a failed turn is an answer that was cut at a maximum of output tokens."""
    return isinstance(error, dict) and "max_output_tokens" in str(error.get("message") or "")


def costs_nothing(error: Any) -> bool:
    """Whether a failed turn was turned away with an HTTP error, before any token was made."""
    info = error.get("codexErrorInfo") if isinstance(error, dict) else None
    if isinstance(info, dict):
        details = next(iter(info.values()), None)
        return isinstance(details, dict) and details.get("httpStatusCode") is not None
    message = str(error.get("message") or "") if isinstance(error, dict) else ""
    return message.startswith('{"error"') or info in (
        "usageLimitExceeded",
        "modelNotFound",
        "serverOverloaded",
        "internalServerError",
        "contextWindowExceeded",
        "unauthorized",
    )


def unknown_in(method: str, params: dict[str, Any]) -> Iterator[str]:
    """What the CLI did not say when it was looked at: a message, or fields of one; and its warnings."""
    fields = _KNOWN.get(method)
    if fields is None:
        yield method
    elif not params.keys() <= fields:
        yield from (f"{method}.{name}" for name in sorted(params.keys() - fields))
