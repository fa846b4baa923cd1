"""The gate's own part: how much later an answer begins through it, and what many streams cost. No CLI.

    ./run bench gate [--rounds 200] [--streams 32] [--seconds 10] [--json FILE]

The model is the loopback stand-in in a process of its own; the gate runs in another, as in the bridge.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks import lab

MODEL, SYSTEM, RATE = "claude-sonnet-5-5", "Be brief.", 100
#: added at most, in ms, and of one core at so many streams
MOST_MS, MOST_SHARE = 1.5, 0.25


def _body(prompt: str) -> bytes:
    words = [{"type": "text", "text": prompt}]
    body = {"model": MODEL, "max_tokens": 4096, "stream": True, "system": [{"type": "text", "text": SYSTEM}]}
    return json.dumps({**body, "messages": [{"role": "user", "content": words}]}).encode()


def serve(url: str, prompts: list[str], tell: Any) -> None:
    """A gate with a ticket for each prompt; `tell` is sent its URL and the tokens."""
    from gevent.monkey import patch_all

    patch_all()
    import gevent

    from bridge.clock import Clock
    from bridge.gate.body import marks
    from bridge.gate.server import Gate
    from bridge.gate.ticket import Ticket, Upstream, Vouched
    from bridge.types import Message, Text

    gate = Gate(Clock())
    gate.open()
    tokens = []
    for prompt in prompts:
        vouched = Vouched(MODEL, SYSTEM, marks((Message("user", (Text(prompt),)),)), 4096)
        ticket = Ticket(Upstream("messages", url, lab.FAKE_KEY), vouched)
        gate.tickets.add(ticket)
        tokens.append(ticket.token)
    tell.send((gate.url, tokens))
    while True:
        gevent.sleep(60)


class _Caller:
    """One kept connection to a gate, or to a model."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)

    def first_byte_ms(self, token: str, prompt: str) -> float:
        """Milliseconds until the first line of an answer, which is read to its end."""
        began = time.perf_counter()
        headers = {"content-type": "application/json", "x-api-key": token}
        self._connection.request("POST", "/v1/messages", _body(prompt), headers)
        answer = self._connection.getresponse()
        answer.readline()
        took = 1000 * (time.perf_counter() - began)
        answer.read()
        assert answer.status == 200
        return took


def measure(rounds: int, streams: int, seconds: float) -> dict[str, Any]:
    """Added milliseconds at one and at many streams, and the gate's share of a core."""
    slow = f"[[standin deltas={round(RATE * seconds)} delay={1 / RATE}]] x"
    prompts = ["hello"] * (rounds + 1) + [slow] * streams + ["hello"] * rounds
    direct, through, busy_direct, busy_through = [], [], [], []
    with lab.stand_in() as url:
        here, there = multiprocessing.get_context("spawn").Pipe()
        gate = multiprocessing.get_context("spawn").Process(target=serve, args=(url, prompts, there), daemon=True)
        gate.start()
        gate_url, tokens = here.recv()
        try:
            one, other = _Caller(url), _Caller(gate_url)
            other.first_byte_ms(tokens.pop(0), "hello")
            for _ in range(rounds):
                direct.append(one.first_byte_ms(lab.FAKE_KEY, "hello"))
                through.append(other.first_byte_ms(tokens.pop(0), "hello"))
            callers = [(_Caller(gate_url), tokens.pop(0)) for _ in range(streams)]
            threads = [threading.Thread(target=caller.first_byte_ms, args=(token, slow)) for caller, token in callers]
            for thread in threads:
                thread.start()
            time.sleep(1)
            process = psutil.Process(gate.pid)
            # First what the streams take alone, then how much later another call begins beside them.
            before, began = process.cpu_times(), time.monotonic()
            time.sleep((seconds - 3) / 2)
            after, passed = process.cpu_times(), time.monotonic() - began
            while time.monotonic() < began + seconds - 3 and len(busy_through) < rounds:
                busy_direct.append(one.first_byte_ms(lab.FAKE_KEY, "hello"))
                busy_through.append(other.first_byte_ms(tokens.pop(0), "hello"))
                time.sleep(0.02)
            for thread in threads:
                thread.join()
        finally:
            gate.terminate()
            gate.join()
    share = (after.user + after.system - before.user - before.system) / passed
    arms = {"1 stream": (direct, through), f"beside {streams} streams": (busy_direct, busy_through)}
    figures = [
        lab.Figures.of(f"{name}, {way}", each)
        for name, both in arms.items()
        for way, each in zip(("direct", "through the gate"), both, strict=True)
    ]
    return {"figures": figures, "share": share}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10, help="of the streams, of 100 pieces a second each")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    facts = lab.machine()
    result = measure(options.rounds, options.streams, options.seconds)
    figures: list[lab.Figures] = result["figures"]
    rows = [[each.name, each.n, f"{each.median:.2f}", f"{each.p95:.2f}"] for each in figures]
    print(lab.table(["way", "n", "median ms", "p95 ms"], rows), end="\n\n")
    added = {
        f"added at 1 stream, ms (at most {MOST_MS})": figures[1].median - figures[0].median,
        f"added beside {options.streams} streams, ms (at most {MOST_MS})": figures[3].median - figures[2].median,
        f"share of one core at {options.streams} streams (at most {MOST_SHARE})": result["share"],
    }
    print(lab.table(["what", "value"], [[what, f"{value:.2f}"] for what, value in added.items()]), end="\n\n")
    print("machine:", json.dumps(facts))
    lab.write_json(options.json, {"machine": facts, "figures": [vars(each) for each in figures], **added})


if __name__ == "__main__":
    main()
