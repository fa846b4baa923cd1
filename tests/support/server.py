"""A real server process for tests and benchmarks, and a small client for it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ADMIN_KEY = "test-admin-key-0123456789"
START_TIMEOUT_S = 60.0


@dataclass
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The server-sent events of the body: (name, data)."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = [line for line in block.split("\n") if line and not line.startswith(":")]
            if lines:
                name = next(line[7:] for line in lines if line.startswith("event: "))
                data = next(line[6:] for line in lines if line.startswith("data: "))
                found.append((name, json.loads(data)))
        return found


@dataclass
class Server:
    """A running server: its address, its process, and calls."""

    process: subprocess.Popen[str]
    data_dir: Path
    port: int
    env: dict[str, str]
    output: list[str] = field(default_factory=list)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> Answer:
        """One request on a connection of its own; `body` is sent as JSON unless it is bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            given = dict(headers or {})
            if key is not None:
                given["Authorization"] = f"Bearer {key}"
            raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, raw, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def admin(self, method: str, path: str, body: Any = None) -> Answer:
        """One request of the admin."""
        return self.call(method, f"/admin{path}", body, key=ADMIN_KEY)

    def new_key(self, name: str = "tester", **limits: Any) -> str:
        """A fresh key with the given limits, and otherwise without any."""
        free = {
            "maxRequestsPerMinute": 0,
            "maxCostPerDay": 0,
            "maxConcurrent": 0,
        }
        answer = self.admin("POST", "/keys", {"name": name, **free, **limits})
        assert answer.status == 201, answer.body
        raw: str = answer.json["key"]
        return raw

    def reset_credentials(self) -> None:
        """Forget what has happened to the credentials: they are used again."""
        for each in self.admin("GET", "/credentials").json["credentials"]:
            if each["state"] != "usable":
                answer = self.admin("POST", f"/credentials/{each['name']}/reset?provider={each['provider']}")
                assert answer.status == 200, answer.body

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `cli-bridge` command on this host with the server's settings."""
        return subprocess.run(
            [sys.executable, "-m", "bridge", *arguments],
            env=self.env,
            cwd=self.data_dir.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the server, and wait for it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            if self.process.stderr is not None and not self.process.stderr.closed:
                self.output += self.process.stderr.read().splitlines()
                self.process.stderr.close()


def environment(data_dir: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """An environment with nothing of the machine's own but PATH."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(ROOT),
        "HOME": str(data_dir.parent),
        "BRIDGE_DATA_DIR": str(data_dir),
        "BRIDGE_ADMIN_KEY": ADMIN_KEY,
        "BRIDGE_RATE_LIMIT_PER_MINUTE": "0",
        "BRIDGE_CLAUDE_COMMAND": "/nonexistent/claude",
        "BRIDGE_CODEX_COMMAND": "/nonexistent/codex",
        "BRIDGE_LOOP_REPEATS": "0",
        **extra,
    }


def start(
    folder: Path, extra: Mapping[str, str] | None = None, *, demo: bool = False, module: str | None = None
) -> Server:
    """Start a server with its data in `folder`/data, and wait until it serves.

    `demo` puts the simulated CLIs in the place of both, without their pauses; `module` is run in the place of `serve`.
    """
    data_dir = folder / "data"
    env = environment(data_dir, extra or {})
    module = "tests.support.demo_server" if demo else module
    argv = [sys.executable, "-m", *([module] if module else ["bridge", "serve"])]
    env.setdefault("BRIDGE_PORT", "0")
    process = subprocess.Popen(argv, env=env, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True)
    server = Server(process, data_dir, 0, env)
    assert process.stderr is not None
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        line = process.stderr.readline()
        if not line:
            break
        server.output.append(line.rstrip())
        if "cli-bridge listens on " in line:
            # A unix socket has none.
            port = line.rstrip().rpartition(":")[2]
            server.port = int(port) if port.isdigit() else 0
            return server
    process.kill()
    process.wait()
    process.stderr.close()
    raise AssertionError("the server did not start:\n" + "\n".join(server.output))


@contextmanager
def running(
    folder: Path, extra: Mapping[str, str] | None = None, *, demo: bool = False, module: str | None = None
) -> Iterator[Server]:
    """A server for the length of a block."""
    server = start(folder, extra, demo=demo, module=module)
    try:
        yield server
    finally:
        server.stop()
