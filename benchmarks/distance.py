"""What CLI and bridge add where the model is far away: TLS, and 50 ms of network each way. One run, interleaved.

    ./run bench distance [--rounds 20] [--each-way-ms 50] [--json FILE]

A forwarder on loopback holds every byte back for that long, in front of a server that ends the TLS and asks the
stand-in. Connecting by TCP takes no time there, so a new connection costs one round trip less than on a real network.
Wants the program openssl, for a certificate.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import ssl
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import lab
from benchmarks.cold import CLAUDE_MODEL, CODEX_MODEL
from tests.support import server as servers

#: at most so many round trips more than a direct call on a kept connection
MOST_TRIPS = 1.0


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    argv += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(argv, check=True, capture_output=True)
    return cert, key


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass bytes on in their order, each `delay_s` after it came."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                writer.close()
                return
            writer.write(data)

    writing = asyncio.create_task(write())
    try:
        while data := await reader.read(65536):
            queue.put_nowait((loop.time() + delay_s, data))
    except OSError:
        pass
    queue.put_nowait((loop.time() + delay_s, b""))
    await writing


async def _forward(port: int, delay_s: float, tls: ssl.SSLContext | None = None) -> int:
    """The port of a server whose connections go to another one, with a delay each way."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_carry(reader, back, delay_s), _carry(there, writer, delay_s), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    found: int = server.sockets[0].getsockname()[1]
    return found


async def _end_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def far_away(url: str, cert: Path, key: Path, delay_s: float) -> Iterator[str]:
    """The address of the model at `url` as it is seen from far away, over TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        inner = asyncio.run_coroutine_threadsafe(_forward(urlsplit(url).port or 0, 0, tls), loop).result(10)
        outer = asyncio.run_coroutine_threadsafe(_forward(inner, delay_s), loop).result(10)
        yield f"https://localhost:{outer}"
    finally:
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


class Direct:
    """Calls of a model on a kept connection, or on a new one for each."""

    def __init__(self, url: str, cert: Path, *, kept: bool) -> None:
        parts = urlsplit(url)
        context = ssl.create_default_context(cafile=str(cert))
        self._connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context, timeout=60)
        self._kept = kept

    def __call__(self, path: str, body: dict[str, Any]) -> float:
        def call() -> None:
            headers = {"content-type": "application/json", "x-api-key": lab.FAKE_KEY}
            self._connection.request("POST", path, json.dumps(body), headers)
            self._connection.getresponse().read()

        took = lab.timed(call)
        if not self._kept:
            self._connection.close()
        return took


def measure(rounds: int, delay_s: float) -> list[lab.Figures]:
    """Run everything."""
    samples: dict[str, list[float]] = defaultdict(list)
    with lab.stand_in() as url, lab.folder() as work:
        cert, key = certificate(work)
        with far_away(url, cert, key, delay_s) as far:
            env = {**lab.real_clis(far), "SSL_CERT_FILE": str(cert)}
            with servers.running(work, env) as server:
                client = lab.Client(server.port, server.new_key("bench"))
                kept, new = Direct(far, cert, kept=True), Direct(far, cert, kept=False)
                messages = {"model": CLAUDE_MODEL, "max_tokens": 100, "stream": True}
                messages |= {"messages": [{"role": "user", "content": "hello"}]}
                responses = {"model": CODEX_MODEL, "stream": True, "input": "hello"}
                arms = {
                    "direct, a kept connection, Messages API": lambda: kept("/v1/messages", messages),
                    "direct, a new connection, Messages API": lambda: new("/v1/messages", messages),
                    "claude through the bridge": lambda: client.generate("/generate"),
                    "direct, a kept connection, Responses API": lambda: kept("/v1/responses", responses),
                    "codex through the bridge": lambda: client.generate("/generate-codex"),
                }
                lab.wait_until_warm(server, 1)
                for number in range(rounds + 1):
                    for name, arm in arms.items():
                        took = arm()
                        if number:  # the first round opens what is kept
                            samples[name].append(took)
    return [lab.Figures.of(name, each) for name, each in samples.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--each-way-ms", type=float, default=50)
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    facts = lab.machine()
    figures = measure(options.rounds, options.each_way_ms / 1000)
    rows = [[each.name, each.n, f"{each.median:.0f}", f"{each.p95:.0f}"] for each in figures]
    print(lab.table(["way", "n", "median ms", "p95 ms"], rows), end="\n\n")
    median = {each.name: each.median for each in figures}
    trip = 2 * options.each_way_ms
    trips = {
        f"{name}: round trips over a direct call on a kept connection (at most {MOST_TRIPS:g})": (
            median[f"{name} through the bridge"] - median[f"direct, a kept connection, {api}"]
        )
        / trip
        for name, api in (("claude", "Messages API"), ("codex", "Responses API"))
    }
    print(lab.table(["what", "value"], [[what, f"{value:.2f}"] for what, value in trips.items()]), end="\n\n")
    print("machine:", json.dumps(facts))
    lab.write_json(options.json, {"machine": facts, "figures": [vars(each) for each in figures], "trips": trips})


if __name__ == "__main__":
    main()
