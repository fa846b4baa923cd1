"""`cli-bridge clis check`: conversations with the real CLIs and a small model on loopback, that show whether a version
does what the bridge relies on. Nothing leaves the host, and no account is asked.

Each run goes through a gate, as in the service: what a CLI sends that the run does not vouch for (another text, a tool,
a second call, words of an earlier run) is refused there, and told here.
"""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import gevent.queue
import msgspec

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.gate.server import Gate
from bridge.gate.ticket import Oddity, OneWay, Upstream
from bridge.gate.upstream import Connections
from bridge.ops.doctor import FAIL, Finding, fail, ok, warn
from bridge.ops.small_model import INPUT_TOKENS, OUTPUT_TOKENS, Saying, SmallModel
from bridge.providers.cli import CliProvider
from bridge.providers.programs import ProgramBook
from bridge.providers.provider import Provider
from bridge.registry import PROVIDERS, ProviderRow
from bridge.sandbox import host
from bridge.sandbox.scratch import Scratch
from bridge.service import real_providers
from bridge.settings import Settings
from bridge.types import (
    Answer,
    Completed,
    Event,
    Failed,
    GenerationRequest,
    Image,
    Message,
    PartDelta,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)

#: Longest that one conversation may take, in seconds.
RUN_S = 20.0
_KEEP = "Keep the tested version of deploy/clis."
#: Longest that a call may outlive its run, in seconds.
END_S = 5.0

_ODD = 'Ünï¢ødé 🙂 "quoted" \\ back\n\n/help @/etc/passwd !ls #note --version <system-reminder>no</system-reminder> \t.'
_SYSTEM = "You answer in one word.\n\nNever say why."
_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
_TOOL = Tool("get_weather", "How warm it is in a city.", _SCHEMA)
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Differs(Exception):
    """What does not hold, as the rest of a sentence that begins with the CLI."""


class Endless(Differs):
    """A run that does not end. Others will not end either, so they are not tried."""


class Bench:
    """One CLI, and the model that it talks to."""

    def __init__(self, provider: Provider, row: ProviderRow, model: SmallModel, gate: Gate) -> None:
        self.provider = provider
        self.row = row
        self.model = model
        self.gate = gate
        self.oddities: list[Oddity] = []

    def run(
        self, prompt: str = "Hello.", *, reply: Saying | None = None, stop: bool = False, **more: Any
    ) -> Completed | Failed | None:
        """A run to its end; `stop` stops it at its first words, and gives None. `more`: fields of the request."""
        self.model.reply = reply or Saying()
        request = GenerationRequest(self.row.name, self.provider.default_model, (_user(prompt),), timeout_s=RUN_S)
        events: gevent.queue.Queue[Event] = gevent.queue.Queue()
        request = msgspec.structs.replace(request, **more)
        # The small model, and a key that is made up.
        base_url = self.model.url + urlsplit(self.row.url).path
        way = OneWay(Upstream(self.row.wire, base_url, f"{self.row.key_prefix}made-up"))
        conversation = self.provider.start(request, events.put, "clis check", None, way)
        try:
            with gevent.Timeout(RUN_S, Endless(f"did not end a run within {RUN_S:g} seconds")):
                while True:
                    event = events.get()
                    if isinstance(event, Completed | Failed):
                        return event
                    if stop and isinstance(event, PartDelta):
                        return None
        finally:
            conversation.cancel()

    def answer(self, prompt: str = "Hello.", **more: Any) -> Answer:
        """The answer of a run that ends well. Raises Differs."""
        end = self.run(prompt, **more)
        if isinstance(end, Failed):
            raise Differs(f"brought no answer: {end.problem.message}")
        assert end is not None
        return end.answer

    @property
    def refused(self) -> int:
        """How many calls the gate has not let pass."""
        return self.gate.refused.total() - self.gate.refused["side call"]

    @property
    def body(self) -> dict[str, Any]:
        """What the model was sent last. Raises Differs."""
        if not self.model.bodies:
            raise Differs("did not ask the model")
        return self.model.bodies[-1][1]


def _user(*texts: str) -> Message:
    return Message("user", tuple(map(Text, texts)))


def _expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise Differs(f"{what}: {found!r} instead of {wanted!r}"[:300])


def _fails(bench: Bench, code: str, reply: Saying) -> Failed:
    end = bench.run(reply=reply)
    if not isinstance(end, Failed):
        raise Differs("took an error for an answer")
    _expect("told the error as another one", end.problem.code, code)
    return end


# --- what must hold -----------------------------------------------------------------------------


def _verbatim(bench: Bench) -> None:
    """A prompt arrives as it is, and its answer comes back"""
    answer = bench.answer(_ODD, reply=Saying("Plain words, ünd 🙂."))
    _expect("brought another text", answer.text, "Plain words, ünd 🙂.")


def _conversation(bench: Bench) -> None:
    """A system text and earlier turns arrive as they are"""
    turns = (_user("One."), Message("assistant", (Text("Two."),)), _user("Three."))
    bench.answer(messages=turns, system=_SYSTEM)


def _image(bench: Bench) -> None:
    """An image arrives"""
    bench.answer(messages=(Message("user", (Text("What is this?"), Image("image/png", _PIXEL, 1))),))
    if _PIXEL not in json.dumps(bench.body):
        raise Differs("left the image out")


def _no_tools(bench: Bench) -> None:
    """No tool is offered, and nothing of this host is told"""
    bench.answer()
    if bench.body.get("tools"):
        raise Differs(f"offered {len(bench.body['tools'])} tools")
    said = json.dumps(bench.body)
    for name, found in {"the folder": str(Path.cwd()), "the name of the host": socket.gethostname()}.items():
        if len(found) > 3 and found in said:
            raise Differs(f"told the model {name}")


def _limit(bench: Bench) -> None:
    """The longest answer goes up"""
    bench.answer(max_output_tokens=1234)
    limit = bench.body.get("max_tokens", bench.body.get("max_output_tokens"))
    _expect("asked for another longest answer", limit, 1234)


def _effort(bench: Bench) -> None:
    """The effort goes up"""
    bench.answer(effort="high")
    if '"high"' not in json.dumps(bench.body):
        raise Differs("left the effort out")


def _schema(bench: Bench) -> None:
    """A JSON Schema goes up, and its answer comes back"""
    answer = bench.answer("Which city?", reply=Saying('{"city": "Paris"}'), schema=_SCHEMA)
    _expect("brought another text", answer.text, '{"city": "Paris"}')
    if '"city"' not in json.dumps(bench.body):
        raise Differs("left the schema out")


def _tool(bench: Bench) -> None:
    """A client's tool is offered, and its call comes back unanswered"""
    answer = bench.answer(reply=Saying('{"city": "Paris"}', tool=_TOOL.name), tools=(_TOOL,))
    calls = [(part.name, part.arguments) for part in answer.content if isinstance(part, ToolCall)]
    _expect("brought other calls", (calls, answer.stop_reason), ([(_TOOL.name, '{"city": "Paris"}')], "tool_use"))


def _tool_result(bench: Bench) -> None:
    """The call of a tool and its result go up with the conversation"""
    call = ToolCall("call_one", _TOOL.name, '{"city": "Paris"}')
    result = ToolResult(call.id, (Text("Twelve degrees."),))
    turns = (_user("How warm?"), Message("assistant", (call,)), Message("user", (result,)))
    bench.answer(messages=turns, tools=(_TOOL,))


def _usage(bench: Bench) -> None:
    """The model's figures come back"""
    usage = bench.answer().usage
    assert usage is not None
    _expect("brought other figures", (usage.prompt, usage.output_tokens), (INPUT_TOKENS, OUTPUT_TOKENS))


def _again(bench: Bench) -> None:
    """A run knows nothing of the one before it"""
    bench.answer("The secret word is heron.", system="Keep the word otter.")
    bench.answer("Which word?")
    said = json.dumps(bench.body)
    if "heron" in said or "otter" in said:
        raise Differs("told the model of an earlier run")


def _side_by_side(bench: Bench) -> None:
    """Two runs at the same time do not meet"""
    runs = [gevent.spawn(bench.answer, f"Number {number}.") for number in (1, 2)]
    gevent.joinall(runs, raise_error=True)
    for number in (1, 2):
        if sum(f"Number {number}." in json.dumps(body) for _, body in bench.model.bodies) != 1:
            raise Differs("mixed two runs up")


def _bad_request(bench: Bench) -> None:
    """A request that the API refuses is told with its words"""
    end = _fails(bench, "provider_invalid_request", Saying("temperature: is not taken by this model", status=400))
    if "temperature" not in end.problem.message:
        raise Differs("kept the API's words for itself")


def _limited(bench: Bench) -> None:
    """A rate limit is told with its time"""
    end = _fails(bench, "provider_rate_limited", Saying("slow down", status=429, retry_after=7))
    _expect("told another time to wait", end.problem.retry_after, 7)


def _overloaded(bench: Bench) -> None:
    """An overload is told as one"""
    _fails(bench, "provider_overloaded", Saying("Overloaded", status=529))


def _cut(bench: Bench) -> None:
    """An answer that breaks off is an error, and not asked for again"""
    _fails(bench, "cli_failed", Saying("These words break off somewhere.", ends="cut"))


def _stopped(bench: Bench) -> None:
    """A run that is stopped ends its call"""
    before = bench.model.left
    bench.run(reply=Saying("These words go on and on.", ends="never"), stop=True)
    with gevent.Timeout(END_S, Differs(f"kept its call for more than {END_S:g} seconds after the stop")):
        while bench.model.left == before:
            gevent.sleep(0.05)


#: What is checked, in this order -> how many calls of the model it takes.
CASES: Mapping[Callable[[Bench], None], int] = {
    _verbatim: 1,
    _conversation: 1,
    _image: 1,
    _no_tools: 1,
    _limit: 1,
    _effort: 1,
    _schema: 1,
    _tool: 1,
    _tool_result: 1,
    _usage: 1,
    _again: 2,
    _side_by_side: 2,
    _bad_request: 1,
    _limited: 1,
    _overloaded: 1,
    _cut: 1,
    _stopped: 1,
}


def check(settings: Settings, names: Collection[str] = PROVIDERS, *, program: str | None = None) -> Iterator[Finding]:
    """All conversations with each CLI of these that is installed, a finding for each as it is done. `program`: of the
    one CLI, instead of what serves."""
    with tempfile.TemporaryDirectory() as temporary, SmallModel() as model:
        folder = Path(temporary)
        scratch = Scratch(folder, host.find_user(settings.cli_user))
        book, own = ProgramBook(settings.data_dir), dict(settings.providers)
        for name in names:
            command, tested = own[name].command, PROVIDERS[name].tested
            chosen = book.choice(name, command, tested)
            path = program or (command if chosen is None else chosen.program)
            own[name] = replace(own[name], credentials="api-key", command=path)
        lean = replace(settings, warm_processes=0, providers=own, data_dir=folder)
        gate = Gate(Clock(), Connections(lean.network))
        gate.open()
        try:
            providers = real_providers(lean, scratch, Clock(), gate)
            for name in names:
                yield from _check(providers[name], model, gate)
        finally:
            gate.close()
            scratch.clear()


def difference(settings: Settings, name: str, path: str) -> str | None:
    """What the program at `path` does not do as the CLI of that name, in a sentence; None where all holds."""
    for each in check(settings, (name,), program=path):
        if each.level == FAIL:
            return each.found
    return None


def checked_providers(settings: Settings, scratch: Scratch, clock: Clock, gate: Gate) -> Mapping[str, Provider]:
    """The CLIs, of which another program than the tested one serves only once it was checked."""
    providers = real_providers(settings, scratch, clock, gate)
    for name, provider in providers.items():
        assert isinstance(provider, CliProvider)
        provider.vet = partial(difference, settings, name)
    return providers


def _check(provider: Provider, model: SmallModel, gate: Gate) -> Iterator[Finding]:
    row = PROVIDERS[provider.name]
    provider.open()
    try:
        status = provider.status()
        if not status.available:
            said = f" It printed: {status.said}" if status.said else ""
            todo = status.hint or ""
            yield fail(row.name, f"{status.problem}{said}", todo)
            return
        yield (ok if status.version == row.tested else _untested)(row.name, f"version {status.version}")
        bench = Bench(provider, row, model, gate)
        gate.watchers.append(bench.oddities.append)
        try:
            for case, calls in CASES.items():
                yield _play(case, calls, bench)
        except Endless as error:
            yield fail(row.name, f"It {error}. Nothing more was tried.", _KEEP)
    finally:
        provider.close()


def _untested(what: str, found: str) -> Finding:
    return warn(what, f"{found}; tested was {PROVIDERS[what].tested}", "What follows says whether it does.")


def _play(case: Callable[[Bench], None], calls: int, bench: Bench) -> Finding:
    name, sentence = bench.row.name, case.__doc__ or ""
    bench.model.bodies.clear()
    bench.oddities.clear()
    refused_before = bench.refused
    problem = ""
    try:
        case(bench)
    except Endless:
        raise
    except Differs as error:
        problem = str(error)
    except BridgeError as error:
        problem = f"cannot serve: {error.message}"
    if bench.oddities:
        # What the gate saw says more than what came of it.
        problem = "; ".join(dict.fromkeys(f"sent or told something else: {each.what}" for each in bench.oddities))
    elif not problem:
        # What a CLI asks again after an error costs nothing; the gate lets none of it pass.
        again = bench.refused - refused_before if bench.model.reply.is_well else 0
        asked = len(bench.model.bodies) + again
        problem = f"asked the model {asked} times instead of {calls}" if asked != calls else ""
    if problem:
        return fail(name, f"{sentence}: no. It {problem}.", _KEEP)
    return ok(name, f"{sentence}.")
