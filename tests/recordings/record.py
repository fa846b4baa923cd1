"""`python -m tests.recordings.record`: record what the installed claude prints, one file for each case.

It talks to the stand-in, on the command line that the bridge gives it with a log-in (a gated one says the same, and is
rewound after it). What nobody reads is left out, and paths and ports are replaced.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.providers import claude_body, claude_wire
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
    **{f"fail-{status}": f"status={status}" for status in (400, 401, 403, 404, 413, 429, 500, 529)},
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
    """What is asked in a case."""
    order = f" [[standin {CASES[case]}]]" if CASES[case] else ""
    turns = [Message("user", (Text(f"Say something.{order}"),))]
    if case == "history":
        turns = [Message("user", (Text("One."),)), Message("assistant", (Text("Two."),)), *turns]
    schema = SCHEMA if case.startswith("schema") else None
    return GenerationRequest("claude", "claude-sonnet-5-5", tuple(turns), "Be brief.", schema=schema)


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
        **({} if case == "not-logged-in" else {"ANTHROPIC_API_KEY": "sk-ant-made-up"}),
    }
    argv = [str(binaries().claude), *claude_wire.arguments("claude-sonnet-5-5", gated=False)]
    process = subprocess.Popen(argv, env=env, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    lines = []
    waiting = [line for line, _ in claude_wire.history(asked.request)] + [claude_wire.prompt(asked.request)]
    process.stdin.write(claude_wire.opening(asked).decode())
    process.stdin.flush()
    for line in process.stdout:
        lines.append(line)
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


def main() -> None:
    """Write all cases into the folder of the installed version."""
    target = Path(__file__).parent / f"claude-{versions()['@anthropic-ai/claude-code']}"
    target.mkdir(exist_ok=True)
    with StandIn() as standin:
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder:
                (target / f"{case}.jsonl").write_text(record(case, standin, Path(folder)))


if __name__ == "__main__":
    main()
