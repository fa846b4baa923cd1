"""`python -m tools.docs`: writes docs/configuration.md from the table of settings, and
docs/compatibility.md from the tables of parameters."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge.settings import TABLE
from bridge.wire.absent import ABSENT
from bridge.wire.apis import APIS
from bridge.wire.parameters import Parameter

#: The files that are written, in a checkout.
CONFIGURATION = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
COMPATIBILITY = CONFIGURATION.with_name("compatibility.md")
WIDTH = 119

_HEAD = """\
# Configuration

<!-- Written by `python -m tools.docs` from bridge/settings.py: change it there. -->

Settings are environment variables. A file `.env` in the working directory is read, too; the real environment wins.
`NAME=${OTHER}` in that file puts in another variable. An empty value counts as not set, and spaces or line breaks
around a secret do not belong to it. All are checked at the start: every mistake is listed at once, and the server does
not start (exit status 2). A change holds from the next start or
reload on (`systemctl reload cli-bridge`, or SIGHUP). A reload takes all but address, port, socket and data folder;
where there is a mistake, it says so and keeps what held before.

Where that file has another name, `BRIDGE_ENV_FILE` names it.

`cli-bridge serve --help` prints the same list. `--host` and `--port` of `serve` and `demo` win over the settings.
`demo` reads only `BRIDGE_HOST` and `BRIDGE_PORT`. The path of a CLI may be relative to the working directory.
"""

_FOOT = """\
What the limits mean: [limits.md](limits.md). What the CLIs get to see of these settings: [clis.md](clis.md).
"""

#: Title -> how the variables of that section begin. The first match counts; the last section takes the rest.
_SECTIONS: dict[str, tuple[str, ...]] = {
    "Limits of keys that name none": ("BRIDGE_DEFAULT_",),
    "Credentials and CLIs": ("BRIDGE_WARM_",),
    "Runs": (
        "BRIDGE_MAX_OUTPUT_",
        "BRIDGE_SCHEMA_",
        "BRIDGE_TIMEOUT_",
        "BRIDGE_IDLE_",
        "BRIDGE_MAX_CONCURRENT",
        "BRIDGE_QUEUE_",
    ),
    "The way to the models": ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_"),
    "Log and clock": ("BRIDGE_LOG_", "BRIDGE_TRACE_", "BRIDGE_TIMEZONE"),
    "Dashboard": ("BRIDGE_ACCESS_",),
    "Alerts and metrics": ("BRIDGE_ALERT_", "BRIDGE_METRICS"),
    "Guards": ("BRIDGE_LOOP_", "BRIDGE_RATE_", "BRIDGE_MAX_BODY_"),
    "Server": ("",),
}
_ORDER = (
    "Server",
    "Dashboard",
    "Credentials and CLIs",
    "The way to the models",
    "Runs",
    "Limits of keys that name none",
    "Guards",
    "Log and clock",
    "Alerts and metrics",
)


def configuration() -> str:
    """The text of docs/configuration.md."""
    parts = [_HEAD]
    for title in _ORDER:
        rows = [row for row in TABLE if _section(row) == title]
        parts.append(f"## {title}\n\n" + "\n".join(_entry(row) for row in rows) + "\n")
    return "\n".join([*parts, _FOOT])


def _section(row: dict[str, Any]) -> str:
    if row["provider"] is not None:
        return "Credentials and CLIs"
    return next(title for title, starts in _SECTIONS.items() if row["variable"].startswith(starts))


def _entry(row: dict[str, Any]) -> str:
    default = f"default `{row['default']}`" if row["default"] else "not set by default"
    secret = "; secret" if row["secret"] else ""
    text = f"- `{row['variable']}` ({default}{secret}): {row['text']}"
    return _filled(text)


def _filled(text: str) -> str:
    """An entry of a list in lines that are not too long."""
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


_COMPATIBILITY_HEAD = """\
# Compatibility

<!-- Written by `python -m tools.docs` from bridge/wire: change the tables there. -->

What becomes of each parameter of the APIs of OpenAI and Anthropic. How to use them: [clients.md](clients.md).

- **supported**: does what it does elsewhere, as far as the remark says.
- **ignored**: may be sent and asks for nothing that an answer shows.
- **passed over**: may be sent, but the answer is made without it; the header `X-Bridge-Ignored` names it.
- **refused**: the CLIs cannot do it, and without it the answer would mean something else. A 400 in the API's own shape.

Values that ask for what happens anyway ("but") are always taken, and change nothing. `null` counts as not given. A
parameter that is not listed is passed over and named. Inside messages and options, fields that are not known are
passed over.
"""

_ABSENT_HEAD = """\
## What is not there

Paths below `/v1` that the SDKs ask for and the bridge has not. The answer is a 404 `not_found` in the API's own shape
that says what is missing → and what to do instead.
"""

_COMPATIBILITY_FOOT = """\
## What is different

- **Tools** are the client's: the model says which to call, the answer ends with the calls, and the client runs them.
  The bridge and the CLIs run nothing. Up to 512, of 1,000,000 bytes as JSON together, with names of letters, digits,
  `_` and `-`. With models of claude `bash_...`,
  `text_editor_...` and `memory_...` of `/v1/messages` are the client's, too; `computer_...` is not, since the CLI does
  not ask for its beta. Those that OpenAI or Anthropic would run themselves (`mcp`, `code_interpreter`,
  `file_search` and the like) are a 400; beside tools of the client's own they are passed over, and `X-Bridge-Ignored`
  has their type. `custom` tools of `/v1/responses` are offered as functions with one text, a grammar in words.
- **`strict`** tools go to the API as such where it takes their schema, and all tools have no more than 100,000 bytes as
  JSON together. Otherwise the bridge looks, where the schema has no more than those by itself: a call that does not
  fit is a 400 `output_mismatch` with the arguments, at the end of a stream.
- **Web search** of the provider, for keys that may ([api.md](api.md#web-search)): up to 10 in one request. It is always
  one that the model may make, and none that it must. `blocked_domains` goes to claude only, `search_context_size` to
  codex only. Blocks and items of earlier searches are left out of a conversation, their texts stay.
- **Calls and results** in a conversation stay as they are: ids, arguments, results, images in them. Every call needs a
  result in the next turn, and every result its call in the turn before; a 400 says which id lacks it. An id that was
  used before, or that not every API takes, becomes another one for the model.
- **Sampling.** `temperature`, `top_p` and `top_k` go to models of Claude before Opus 4.7 and before the 5 generation,
  while they do not think; `top_p` not beside a temperature, and no temperature above 1. All other models take none: it
  is passed over. `frequency_penalty` and its like no model takes.
- **Images** come as data (data URLs in any spelling, base64), whose bytes say of which kind they are, or as
  [https links](api.md#drop-in-apis), which the provider follows. The bridge fetches nothing, and keeps no files.
- **No state.** A request brings all that it needs: there are no stored answers to fetch, no conversations, files or
  batches.
- **The last message is from the user.** In `/v1/messages` an answer cannot be begun for the model (prefill): the CLIs
  answer a user, and the newer models refuse it, too. In OpenAI's APIs a conversation may end with the model's own
  words: they stay a turn of their own, and the model is told "Continue."
- **System messages** anywhere in a conversation, also in `/v1/messages`, are put together into one system prompt. Where
  nothing else was said, that is the prompt. Messages of one role that follow each other become one, and empty ones of
  the assistant are left out.
- **References** (`item_reference` of `/v1/responses`) stand for what they name: an item that was sent along, or one of
  an answer that the same key got within the last hour, unless that was asked for with `store: false`. Such answers lie
  in the memory of the host that gave them, 8 MiB at most, of which the oldest of the key that has the most go first. A
  restart and another host know nothing of them. What a reference names is left out then, and `X-Bridge-Ignored` says
  `item_reference`; where it is a call whose output was sent, a 400 names it. The answer to `previous_response_id`, and
  to `thread` of `/v1/messages`, is the error that the SDKs know: they send all again.
- **Schemas** may be any JSON Schema, of any type at the top, strict or not. The bridge checks the answer itself, and
  asks once more if it misses ([api.md](api.md#structured-answers)). In a stream the JSON comes in one piece, once it
  has been checked. After the second miss: a 400 `output_mismatch`.
- **Behind Cloudflare** an answer that is not streamed and takes more than 90 seconds is a 504, because the tunnel waits
  no longer. It goes on as a job, which the message names ([api.md](api.md#long-answers)). So stream what takes long.
- **In the queue**, a stream has a comment every 15 seconds (`: queued, place 2`), which SDKs pass over. The native API
  has an event for each new place.
- **Stop sequences**, up to 16, of 1,000 characters together, go to the API with claude. With codex the bridge looks for
  them in the text and stops the model, so the usage of such an answer is its own estimate. Where the answer must be
  JSON they are passed over.
- **A refusal of the model** is an answer, as it is there: stop_reason `refusal` with `stop_details`; `message.refusal`
  with finish_reason `content_filter`; a `refusal` part.
- **Thinking** counts as output tokens, in `reasoning_tokens` or `thinking_tokens`. Nobody sees it who does not ask:
  `thinking` of `/v1/messages` shows it in blocks of its own, with signatures, and `reasoning.summary` of
  `/v1/responses` in items. claude thinks within a budget before Opus 4.7 and the 5 generation, and adaptively from 4.6
  on; asked for the other, it does what it knows. From the 5 generation on it thinks by itself, and as at the official
  API, `disabled` or the effort `none` spares that: with Opus 5 and Sonnet 5, and with Sonnet 5.5, which is told
  `between_tools`. What it cannot is passed over: `disabled` with the other models of this generation, and at the
  efforts `xhigh` and `max` of all; a budget where `max_tokens` is 1,024 or less, where a tool must be called, or where
  results of tools come without the blocks before them; codex has no `thinking` at all.
- **Effort** that nobody asks for is the API's own for the model, also where the CLI by itself would say another. In
  OpenAI's APIs it asks claude to think, too; in `/v1/messages` only `thinking` does, and `effort` is passed over where
  the model knows none (before Opus 4.5 and the 4.6 generation).
- **Thinking blocks that come back** go to the model where it goes on with results of tools and thinks again. Those
  before the last question are left out, which every model takes, and with the models that know no budget those before
  a system message in the middle: they take none where anything before it is another. So are `reasoning` items.
- **`count_tokens`** and **`input_tokens`** are an estimate: a quarter of the bytes, 1,600 for an image. The model's own
  count differs.
- **`usage`** at the start of a stream of `/v1/messages` is zero; `message_delta` at its end has all of it.
- **Errors** have the fields of their API, and the bridge's own `code` and `hint` besides ([api.md](api.md#errors)). In
  the OpenAI shape `code` is the bridge's, and `type` is `insufficient_quota` for caps of a day, a month or a request.
- **Output tokens**: a number above what the server allows (`BRIDGE_MAX_OUTPUT_TOKENS_LIMIT`) counts as what it allows.
- **Headers** such as `anthropic-version`, `anthropic-beta` or `OpenAI-Organization` are ignored.
"""


def compatibility() -> str:
    """The text of docs/compatibility.md."""
    parts = [_COMPATIBILITY_HEAD]
    for api, path in [(each, path) for each in APIS.values() if each.sdk for path in each.paths]:
        rows = "\n".join(_rows(api.parameters.values()))
        counted = ""
        if api.count is not None:
            left_out = ", ".join(f"`{name}`" for name in api.parameters if name not in api.count.parameters)
            counted = f"\n`POST {api.count.path}` takes the same{left_out and ', but for'}\n{left_out}".rstrip() + ".\n"
        parts.append(f"## POST {path}\n\n| parameter | what | remark |\n| --- | --- | --- |\n{rows}\n{counted}")
    absent = [f"- {', '.join(f'`{path}`' for path in row.paths)}: {row.text} → {row.hint}" for row in ABSENT]
    return "\n".join([*parts, _ABSENT_HEAD, *map(_filled, absent), "", _COMPATIBILITY_FOOT])


def _rows(parameters: Iterable[Parameter]) -> Iterable[str]:
    for parameter in parameters:
        but = f", but {_taken(parameter.only)}" if parameter.only else ""
        yield f"| `{parameter.name}` | {parameter.what}{but} | {parameter.note} |"


def _taken(only: tuple[Any, ...]) -> str:
    types = [value["type"] for value in only if isinstance(value, dict) and value]
    if types:
        return "type " + ", ".join(f"`{name}`" for name in types)
    return ", ".join(f"`{json.dumps(value)}`" for value in only)


def main() -> None:
    """Write the files."""
    CONFIGURATION.write_text(configuration())
    COMPATIBILITY.write_text(compatibility())


if __name__ == "__main__":
    main()
