"""A hostile key beside three honest ones: whether these notice. `./run bench soak --hostile`.

The hostile one does at once what an attack found to hold others up: pictures of a billion pixels and large photos,
answers without end, thousands of requests on a connection, bodies of nothing but values, schemas that keep a CLI busy,
answers whose check takes long, and runs that hang in every slot. It is a process of its own, at the lowest priority:
its machine would be another. The stand-in of the models goes with the bridge's own priority, since honest keys wait for
it, too. Each client comes from an address of its own.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from benchmarks import lab
from tests.support import server as servers
from tests.support.server import Server

#: as on a host of one gigabyte, and what an address may send in a minute
SLOTS, PER_MINUTE = 4, 1200
#: the most that honest keys may wait longer for their answers, at the 95th percentile
MOST_SLOWER = 3.0
HONEST = 3
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


@dataclass
class Phase:
    """What the honest keys got for a while: seconds of each answer, and what was no answer."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    #: seconds of CPU that the process which serves took, and its length, in seconds
    worker_cpu_s: float = 0.0
    length_s: float = 0.0

    @property
    def p95(self) -> float:
        """The 95th percentile, in seconds."""
        return statistics.quantiles(self.seconds, n=20)[-1] if len(self.seconds) > 1 else float("nan")


@dataclass
class Result:
    """Both phases, and what the hostile key was told."""

    quiet: Phase = field(default_factory=Phase)
    hostile: Phase = field(default_factory=Phase)
    told: dict[str, dict[str, int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def slower(self) -> float:
        """How many times as long an honest key waits beside the hostile one."""
        return self.hostile.p95 / self.quiet.p95


def run(seconds: float) -> Result:
    """Honest keys alone for a third of the time, then beside the hostile one."""
    result = Result()
    settings = {
        "BRIDGE_MAX_CONCURRENT": str(SLOTS),
        "BRIDGE_WARM_PROCESSES": "2",
        "BRIDGE_RATE_LIMIT_PER_MINUTE": str(PER_MINUTE),
    }
    with lab.stand_in() as url, lab.folder() as work:
        server = servers.start(work, lab.real_clis(url, **settings))
        try:
            lab.wait_until_warm(server, 2)
            keys = [server.new_key(f"honest-{number}", loopRepeats=0) for number in range(HONEST)]
            worker = lab.worker_pid(server)
            _honest(server, keys, seconds / 3, result.quiet)
            hostile = server.new_key("hostile", maxConcurrent=SLOTS, loopRepeats=0)
            command = [sys.executable, "-m", "benchmarks.soak_hostile", str(server.port), hostile, str(seconds * 2 / 3)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
                _honest(server, keys, seconds * 2 / 3, result.hostile)
                out, _ = attacker.communicate(timeout=120)
            result.told = json.loads(out)
            if lab.worker_pid(server) != worker:
                result.wrong.append("the worker was started again")
        finally:
            server.stop()
    for phase in (result.quiet, result.hostile):
        result.wrong += [f"an honest key got {code} {times} times" for code, times in phase.errors.items()]
    if not result.slower <= MOST_SLOWER:
        result.wrong.append(f"honest keys waited {result.slower:.1f} times as long")
    return result


def _post(port: int, address: str, path: str, key: str, body: bytes | dict[str, Any]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120, source_address=(address, 0))
    try:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, raw, {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _honest(server: Server, keys: list[str], seconds: float, phase: Phase) -> None:
    """Each key asks both CLIs in turn, in words and for JSON, one request after the other."""
    until = time.monotonic() + seconds
    worker = psutil.Process(lab.worker_pid(server))
    before, phase.length_s = _cpu_s(worker), seconds

    def ask(number: int, key: str) -> None:
        for turn in range(10**9):
            if time.monotonic() >= until:
                return
            path = ("/generate", "/generate-codex")[turn % 2]
            body: dict[str, Any] = {"userPrompt": f"[[standin deltas=8 delay=0.05]] {number} {turn}"}
            if turn % 4 >= 2:
                body["schema"] = SCHEMA
            began = time.monotonic()
            try:
                status, raw = _post(server.port, f"127.0.1.{number + 1}", path, key, body)
                code = "ok" if status == 200 else f"{status} {json.loads(raw).get('code')}"
            except (OSError, http.client.HTTPException, ValueError) as error:
                code = type(error).__name__
            if code == "ok":
                phase.seconds.append(time.monotonic() - began)
            else:
                phase.errors[code] += 1
            time.sleep(0.2)

    threads = [threading.Thread(target=ask, args=each) for each in enumerate(keys)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phase.worker_cpu_s = _cpu_s(worker) - before


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _repeat(attack: Callable[[], str], over: threading.Event, told: Counter[str]) -> None:
    while not over.is_set():
        try:
            told[attack()] += 1
        except (OSError, http.client.HTTPException) as error:
            told[type(error).__name__] += 1
        over.wait(0.1)


def attack(port: int, key: str, seconds: float) -> dict[str, dict[str, int]]:
    """Everything at once for so long; what came of each."""
    os.nice(19)
    over, attacks = threading.Event(), _attacks(port, key)
    told: dict[str, Counter[str]] = {name: Counter() for name in attacks}
    threads = [threading.Thread(target=_repeat, args=(each, over, told[name])) for name, each in attacks.items()]
    for thread in threads:
        thread.start()
    over.wait(seconds)
    over.set()
    for thread in threads:
        thread.join()
    return {name: dict(counter) for name, counter in told.items()}


def _attacks(port: int, key: str) -> dict[str, Callable[[], str]]:
    """Name -> one round of it, which returns what came of it."""
    address = "127.0.2.1"
    values = b'{"model":"haiku","x":[' + b",".join([b"[]"] * 590_000) + b"]}"
    wide = {"type": "object", "properties": {"a": {"enum": [{"": number} for number in range(7000)]}}}
    slow = {"type": "string", "pattern": "^(a+)+$"}
    text = base64.b64encode(json.dumps("a" * 60 + "!").encode()).decode()
    photos = [_photo(number) for number in range(4)]
    numbers = iter(range(10**9))

    def ask(path: str, *, pause_s: float = 0.0, **body: Any) -> Callable[[], str]:
        # Another prompt, and another schema, each time; encoded once.
        if "schema" in body:
            body["schema"] = {**body["schema"], "title": "NUMBER"}
        raw = json.dumps({**body, "userPrompt": f"{body.get('userPrompt', 'look')} NUMBER"}).encode()

        def once() -> str:
            time.sleep(pause_s)
            status, _ = _post(port, address, path, key, raw.replace(b"NUMBER", b"%d" % next(numbers)))
            return str(status)

        return once

    def refused() -> str:
        time.sleep(0.4)
        return str(_post(port, address, "/generate", key, values)[0])

    def pipelined() -> str:
        with socket.socket() as connection:
            connection.bind((address, 0))
            connection.settimeout(60)
            connection.connect(("127.0.0.1", port))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 3000)
            received = 0
            while chunk := connection.recv(65536):
                received += chunk.count(b"HTTP/1.1 200")
            return f"{received} answers"

    hang = ask("/generate-codex", userPrompt="[[standin mode=hang]]", timeoutSeconds=10)
    return {
        "a billion pixels": ask("/generate-codex", images=[_picture(30_000)]),
        "49 million pixels": ask("/generate-codex", images=[_picture(7_000)]),
        "photos": ask("/generate-codex", images=photos, pause_s=1),
        "photos, claude": ask("/generate", images=photos, pause_s=1),
        "an endless answer": ask("/generate-codex", userPrompt="[[standin size=20000000 deltas=1]]"),
        "pipelined": pipelined,
        "values": refused,
        "wide schemas": ask("/generate", schema=wide),
        "slow checks": ask("/generate", schema=slow, userPrompt=f"[[standin text={text}]]"),
        **{f"hanging {number}": hang for number in range(SLOTS)},
    }


def _picture(side: int) -> str:
    """A PNG of one bit for each pixel, as a data URL: a thousandth of what it is decoded to."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    raw = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(raw).decode()


def _photo(number: int) -> str:
    """A JPEG of 12 million pixels and 4.5 MB by its header; nobody has to decode it."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 3000, 4000, 1) + b"\x01\x11\x00"
    raw = (b"\xff\xd8" + frame + bytes([number])).ljust(4_500_000, b"\0")
    return "data:image/jpeg;base64," + base64.b64encode(raw).decode()


def show(result: Result) -> None:
    """Print everything."""
    rows = [
        [
            *(name, len(phase.seconds), phase.errors.total()),
            *(f"{statistics.median(phase.seconds):.2f}", f"{phase.p95:.2f}"),
            f"{100 * phase.worker_cpu_s / phase.length_s:.0f}%",
        ]
        for name, phase in (("alone", result.quiet), ("beside the hostile key", result.hostile))
    ]
    print(
        lab.table(["honest keys", "answers", "errors", "median s", "p95 s", "a core, of the worker"], rows), end="\n\n"
    )
    print(f"95% of the honest answers took at most {result.slower:.1f} times as long", end="\n\n")
    print(lab.table(["the hostile key", "was told"], [[k, json.dumps(v)] for k, v in result.told.items()]), end="\n\n")
    print("\n".join(["wrong:", *result.wrong]) if result.wrong else "All that must hold, holds.")


if __name__ == "__main__":
    print(json.dumps(attack(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))))
