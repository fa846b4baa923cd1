"""`python -m tests.recordings.record`: record what the installed CLIs print, one file for each case.

They talk to the stand-in, on the command lines that the bridge gives them: claude on that with a log-in (a gated one
says the same, and is rewound after it). What nobody reads is left out, and paths and ports are replaced.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bridge.providers import claude_body, claude_wire, codex_body, codex_wire
from bridge.types import GenerationRequest, Message, Text
from tests.real_cli.install import binaries, versions
from tests.standin import StandIn

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
#: case -> what the stand-in is told to do
CASES: Mapping[str, str] = {
    "success": "",
    "long-stream": "deltas=40",
    "empty": "mode=empty",
    "cut": "mode=cut_early",
    "garbage": "mode=garbage",
    "hang": "mode=hang",
    "hang-mid-stream": "mode=hang_mid",
    "stream-error": "mode=stream_error",
    "max-tokens": "mode=max_tokens output=20",
    "refusal": "mode=refusal",
    "prompt-too-long": "mode=context",
    "thinking": "thinking=true",
    "tool": "tool=Read",
    "schema": "",
    "schema-broken": "schema_bad=true",
    "schema-ignored": "schema_never=true",
    "history": "",
    "not-logged-in": "",
    "interrupt": "deltas=40 delay=0.05",
    "rate-limit-event": "limits=LIMITS",
    **{f"fail-{status}": f"status={status}" for status in (400, 401, 403, 404, 413, 429, 500, 529)},
}
#: What Anthropic says to a subscription that has used most of a window, with its end an hour from now.
_LIMITS = {
    "status": "allowed_warning",
    "representative-claim": "five_hour",
    "reset": "SOON",
    "5h-status": "allowed_warning",
    "5h-utilization": "0.93",
    "5h-surpassed-threshold": "0.9",
    "5h-reset": "SOON",
    "7d-status": "allowed",
    "7d-utilization": "0.4",
    "7d-reset": "SOON",
}
#: case of codex -> what the stand-in is told to do, one file each
CODEX_CASES: Mapping[str, str] = {
    "success": "deltas=3 input=1000 cached=600 output=50 reasoning=20",
    "fail-429": "status=429",
    "hang": "mode=hang",
    "unknown-model-warning": "deltas=3",
}
#: the same, of which only the ends of their turns are kept, in turn-ends.jsonl
CODEX_ENDS: Mapping[str, str] = {
    **{str(status): f"status={status}" for status in (400, 401, 403, 404, 429, 500, 503)},
    "quota": "mode=quota",
    "hang_mid": "mode=hang_mid deltas=4",
    "cut": "mode=cut deltas=4",
    "cut_early": "mode=cut_early",
    "failed": "mode=stream_error deltas=4",
    "failed_rate": "mode=stream_rate_limit deltas=4",
    "incomplete": "mode=incomplete",
    "ctx": "mode=context",
    "garbage": "mode=garbage",
    "ok": "",
}
#: Lists of the line at the beginning that nobody reads.
_LEFT_OUT = (
    "agents",
    "capabilities",
    "plugins",
    "skills",
    "slash_commands",
    "commands",
    "models",
    "available_output_styles",
)


def request_of(case: str) -> GenerationRequest:
    """What is asked of claude in a case."""
    limits = ",".join(f"anthropic-ratelimit-unified-{name}:{value}" for name, value in _LIMITS.items())
    order = CASES[case].replace("LIMITS", limits).replace("SOON", str(int(time.time()) + 3600))
    order = f" [[standin {order}]]" if order else ""
    turns = [Message("user", (Text(f"Say something.{order}"),))]
    if case == "history":
        turns = [Message("user", (Text("One."),)), Message("assistant", (Text("Two."),)), *turns]
    schema = SCHEMA if case.startswith("schema") else None
    return GenerationRequest("claude", "claude-sonnet-5-5", tuple(turns), "Be brief.", schema=schema)


#: case -> what claude is logged in with, where that is no API key
_SECRETS: Mapping[str, Mapping[str, str]] = {
    "not-logged-in": {},
    "rate-limit-event": {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat-made-up"},
}
#: Cases without the budget of one call, which ends a run that is interrupted, and takes the event away.
_UNBOUND = ("interrupt", "rate-limit-event")
_INTERRUPT = '{"type":"control_request","request_id":"interrupt","request":{"subtype":"interrupt"}}\n'


def record(case: str, standin: StandIn, folder: Path) -> str:
    """What claude prints in a case."""
    asked = claude_body.ask(request_of(case))
    env = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "CLAUDE_CONFIG_DIR": str(folder),
        **claude_wire.environment(timeout_s=5, idle_timeout_s=3, max_output_tokens=1000),
        "ANTHROPIC_BASE_URL": standin.url,
        **_SECRETS.get(case, {"ANTHROPIC_API_KEY": "sk-ant-made-up"}),
    }
    argv = [str(binaries().claude), *claude_wire.arguments("claude-sonnet-5-5", gated=False)]
    if case in _UNBOUND:
        del argv[(at := argv.index("--max-budget-usd")) : at + 2]
    process = subprocess.Popen(argv, env=env, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    lines = []
    waiting = [line for line, _ in claude_wire.history(asked.request)] + [claude_wire.prompt(asked.request)]
    process.stdin.write(claude_wire.opening(asked).decode())
    process.stdin.flush()
    interrupt = _INTERRUPT if case == "interrupt" else ""
    for line in process.stdout:
        lines.append(line)
        if interrupt and '"text_delta"' in line:
            process.stdin.write(interrupt)
            process.stdin.flush()
            interrupt = ""
        settled = '"request_id":"settings"' in line or '"type":"result"' in line
        if settled and not waiting:
            break
        while settled and waiting:
            said = waiting.pop(0).decode()
            process.stdin.write(said)
            process.stdin.flush()
            # What is not answered is followed by the next at once.
            settled = '"type":"assistant"' in said
    process.kill()
    process.wait()
    return "".join(trimmed(line, standin, folder) for line in lines)


def trimmed(line: str, standin: StandIn, folder: Path) -> str:
    """A line without what is only this machine's."""
    line = line.replace(str(folder), "/scratch").replace(standin.url, "http://127.0.0.1:1")
    line = line.replace(str(folder).replace("/", "-"), "-scratch")
    message = json.loads(re.sub(r'"(pid|messaging_socket_path)":("[^"]*"|\d+)', r'"\1":0', line))
    response = message.get("response")
    inner: Any = response.get("response") if isinstance(response, dict) else None
    for each in filter(None, (message, inner)):
        for name in _LEFT_OUT:
            each.pop(name, None)
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False) + "\n"


class Codex:
    """An app-server as the bridge starts it, and all that it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._process = process

    def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        number = len(self.lines) + 1
        self.write({"id": number, "method": method, "params": params})
        return self.read(lambda message: message.get("id") == number)

    def write(self, message: Mapping[str, Any]) -> None:
        """Say something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def read(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message of a kind."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            message: dict[str, Any] = json.loads(line)
            if wanted(message):
                return message
        raise EOFError("codex has ended")


@contextmanager
def app_server(standin: StandIn, folder: Path) -> Iterator[Codex]:
    """A new one, that was greeted."""
    program = str(binaries().codex)
    env = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "CODEX_HOME": str(folder),
        codex_wire.KEY_VARIABLE: "sk-made-up",
    }
    models = subprocess.run([program, "debug", "models"], env=env, cwd=folder, capture_output=True, check=True).stdout
    (folder / "models.json").write_text(json.dumps(codex_wire.catalog_without_tools(json.loads(models))))
    argv = codex_wire.arguments(
        base_url=standin.openai_url, idle_timeout_s=3, catalog=str(folder / "models.json"), sqlite_home=str(folder)
    )
    process = subprocess.Popen(
        [program, *argv], env=env, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        codex = Codex(process)
        codex.call("initialize", codex_wire.initialize("1.0"))
        codex.write({"method": "initialized"})
        yield codex
    finally:
        process.kill()
        process.wait()


def play(codex: Codex, case: str, order: str, folder: Path) -> dict[str, Any]:
    """One thread with one turn; its end, or where it hangs what came before."""
    prompt = "Hello" + (f" [[standin {order}]]" if order else "")
    model = "gpt-unknown" if case == "unknown-model-warning" else "gpt-6-sol"
    request = GenerationRequest("codex", model, (Message("user", (Text(prompt),)),), "Be brief.")
    asked = codex_body.ask(request, gated=False)
    thread = codex.call("thread/start", codex_wire.thread_start(asked, str(folder)))["result"]["thread"]["id"]
    codex.call("turn/start", codex_wire.turn_start(asked.request, thread))
    if case == "hang":
        return codex.read(lambda message: message.get("method") == "item/completed")
    end = codex.read(lambda message: message.get("method") == "turn/completed")
    codex.call("thread/unsubscribe", {"threadId": thread})
    codex.read(lambda message: message.get("method") == "thread/closed")
    return end


def ends(standin: StandIn, folder: Path) -> Iterator[str]:
    """The end of one turn for each case, with its `case`, and the `text` that came before."""
    with app_server(standin, folder) as codex:
        for case, order in CODEX_ENDS.items():
            before = len(codex.lines)
            turn = play(codex, case, order, folder)["params"]["turn"]
            said = map(json.loads, codex.lines[before:])
            text = "".join(each["params"]["delta"] for each in said if each.get("method") == "item/agentMessage/delta")
            kept = {"case": case, "text": text, "turn": {name: turn[name] for name in ("status", "error")}}
            yield trimmed(json.dumps({"method": "turn/completed", "params": kept}), standin, folder)


def main() -> None:
    """Write all cases into the folders of the installed versions."""
    here, installed = Path(__file__).parent, versions()
    claude = here / f"claude-{installed['@anthropic-ai/claude-code']}"
    codex = here / f"codex-{installed['@openai/codex']}"
    with StandIn() as standin:
        for target in (claude, codex):
            target.mkdir(exist_ok=True)
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder:
                (claude / f"{case}.jsonl").write_text(record(case, standin, Path(folder)))
        for case, order in CODEX_CASES.items():
            with tempfile.TemporaryDirectory() as folder, app_server(standin, Path(folder)) as server:
                play(server, case, order, Path(folder))
                lines = "".join(trimmed(line, standin, Path(folder)) for line in server.lines)
                (codex / f"{case}.jsonl").write_text(lines)
        with tempfile.TemporaryDirectory() as folder:
            (codex / "turn-ends.jsonl").write_text("".join(ends(standin, Path(folder))))


if __name__ == "__main__":
    main()
