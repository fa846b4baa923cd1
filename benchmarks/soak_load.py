"""The load of the soak: clients that ask, fail, hang, leave, cancel and ask again, each by chance but repeatably."""

from __future__ import annotations

import http.client
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.server import Answer, Server

PATHS = {"/generate": ("claude-sonnet-5-5", "claude-haiku-5-5"), "/generate-codex": ("gpt-6-sol", "gpt-5.5")}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
#: what the stand-in is told to do -> the codes that are right for it
FAULTS = {
    # No 429: after one, the only credential takes one run at a time until a success, and hanging runs would stand in
    # front of all others. tests/real_cli/test_credentials has it.
    "status=529": {"provider_overloaded", "cli_failed"},
    "status=500": {"provider_overloaded", "cli_failed"},
    "mode=garbage": {"cli_failed", "cli_bad_output"},
    "mode=cut": {"cli_failed"},
}
HANGS = ("hang", "hang_headers", "hang_mid")
#: an answer of 200 tokens that takes four seconds, to be stopped before its end
SLOW = "size=800 deltas=40 delay=0.1"
#: what a busy bridge may say to anybody
BUSY = {"overloaded", "queue_timeout"}


class Wrong(Exception):
    """What came is not what has to come; the text says how."""


@dataclass(frozen=True)
class Done:
    """One thing that a client did."""

    kind: str
    provider: str
    code: str
    """`ok`, the code of an error, or `left`."""
    tag: str
    seconds: float
    #: when it ended, in seconds since the epoch
    at: float
    wrong: str | None = None


class Client:
    """Does one thing after the other. `tag`, the first word of its prompts, finds them again everywhere else."""

    def __init__(self, number: int, server: Server, key: str) -> None:
        self.done: list[Done] = []
        self._number = number
        self._server = server
        self._key = key
        self._chance = random.Random(number)
        self._tag = ""
        self._path = ""
        self._kinds: Mapping[str, tuple[int, Callable[[], str]]] = {
            "answer": (4, self.answer),
            "stream": (4, self.stream),
            "conversation": (1, self.conversation),
            "long answer": (1, self.long_answer),
            "schema": (2, self.schema),
            "job": (2, self.job),
            "waiting for a job": (1, self.waiting),
            "upstream fault": (4, self.fault),
            "hang": (2, self.hang),
            "leaving": (2, self.leaving),
            "leaving a stream": (2, self.leaving_a_stream),
            "cancelled job": (1, self.cancelled_job),
            "stopped by the admin": (1, self.stopped),
            "sent twice": (2, self.sent_twice),
            "fetched after leaving": (1, self.fetched_after_leaving),
            "refused": (1, self.refused),
        }

    def prepare(self, path: str) -> None:
        """What is asked next goes to `path`, and is no part of `done`."""
        self._path = path
        self._tag = f"first-{self._number}-{self._chance.getrandbits(40)}"

    def run(self, until: float, most: float) -> None:
        """Go on until that time of time.monotonic(), or until so many things are done."""
        weights = [weight for weight, _ in self._kinds.values()]
        while time.monotonic() < until and len(self.done) < most:
            (kind,) = self._chance.choices(list(self._kinds), weights)
            self._path = self._chance.choice(list(PATHS))
            self._tag = f"soak-{self._number}-{len(self.done)}"
            began, wrong = time.monotonic(), None
            try:
                code = self._kinds[kind][1]()
            except Wrong as error:
                code, wrong = "wrong", str(error)
            except (OSError, http.client.HTTPException) as error:
                code, wrong = "wrong", f"the connection was lost: {error!r}"
            provider = "codex" if self._path == "/generate-codex" else "claude"
            self.done.append(Done(kind, provider, code, self._tag, time.monotonic() - began, time.time(), wrong))

    # --- what ends well ----------------------------------------------------------------------------

    def answer(self) -> str:
        return self._good(self._post(self._body(self._figures())))

    def stream(self) -> str:
        answer = self._post(self._body(f"deltas=12 delay=0.02 {self._figures()}", stream=True))
        if answer.status != 200:
            return self._failed(answer, set())
        names = [name for name, _ in answer.events if name != "queued"]
        if names[0] != "start" or names[-1] != "done" or set(names[1:-1]) != {"delta"}:
            raise Wrong(f"events {names}, at last {answer.events[-1]}")
        text = "".join(data["text"] for name, data in answer.events if name == "delta")
        return self._same(text, answer.events[-1][1])

    def conversation(self) -> str:
        turns = [("user", "one"), ("assistant", "two"), ("user", self._prompt(self._figures()))]
        body = {"messages": [{"role": role, "content": text} for role, text in turns], "model": self._model()}
        return self._good(self._post({**body, "systemPrompt": "Be brief."}))

    def long_answer(self) -> str:
        answer = self._post(self._body(f"size=30000 deltas=60 {self._figures()}"))
        if answer.status == 200 and len(answer.json["content"][0]["text"]) != 30000:
            raise Wrong("a long answer is not whole")
        return self._failed(answer, set()) if answer.status != 200 else "ok"

    def schema(self) -> str:
        answer = self._post(self._body(self._figures(), schema=SCHEMA))
        if answer.status == 200 and set(answer.json["output"]) != {"name", "age"}:
            raise Wrong(f"output {answer.json['output']}")
        return self._failed(answer, set()) if answer.status != 200 else "ok"

    def job(self) -> str:
        body = self._body(f"deltas=10 delay=0.05 {self._figures()}")
        return self._fetched(self._post(body, Prefer="respond-async"))

    def waiting(self) -> str:
        body = self._body(f"deltas=15 delay=0.1 {self._figures()}")
        answer = self._post(body, Prefer="wait=1")
        return self._good(answer) if answer.status == 200 else self._fetched(answer)

    def sent_twice(self) -> str:
        body = self._body(self._figures())
        first = self._post(body, **{"Idempotency-Key": self._tag})
        if first.status != 200:
            return self._failed(first, set())
        again = self._post(body, **{"Idempotency-Key": self._tag})
        if again.json != first.json or again.headers.get("idempotent-replayed") != "true":
            raise Wrong(f"the second answer is another: {again.status} {again.body[:200]!r}")
        other = self._post({**body, "systemPrompt": "Another."}, **{"Idempotency-Key": self._tag})
        if other.status != 409:
            raise Wrong(f"another body with the same Idempotency-Key got {other.status}")
        return self._good(again)

    def fetched_after_leaving(self) -> str:
        body = self._body(f"deltas=10 delay=0.1 {self._figures()}")
        headers = {"Idempotency-Key": self._tag}
        self._leave(body, self._chance.uniform(0.1, 0.8), headers)
        deadline = time.monotonic() + 90
        while (answer := self._post(body, **headers)).status == 409:
            if time.monotonic() > deadline:
                raise Wrong("a run whose client had left did not end")
            time.sleep(0.2)
        return self._good(answer)

    # --- what does not ---------------------------------------------------------------------------------

    def fault(self) -> str:
        directive, codes = self._chance.choice(list(FAULTS.items()))
        return self._failed(self._post(self._body(directive)), codes)

    def hang(self) -> str:
        body = self._body(f"mode={self._chance.choice(HANGS)} deltas=20", timeoutSeconds=2)
        return self._failed(self._post(body), {"timeout"})

    def leaving(self) -> str:
        self._leave(self._body(SLOW), self._chance.uniform(0.02, 1.5), {})
        return "left"

    def leaving_a_stream(self) -> str:
        connection = self._send(self._body(SLOW, stream=True), {})
        answer = connection.getresponse()
        while (line := answer.readline()) and not line.startswith(b"event: delta"):
            if line.startswith(b"event: error"):
                raise Wrong(f"the stream failed: {answer.readline()[:200]!r}")
        answer.close()
        connection.close()
        return "left"

    def cancelled_job(self) -> str:
        job = self._started()
        time.sleep(self._chance.uniform(0.0, 1.0))
        answer = self._server.call("DELETE", f"/jobs/{job}", key=self._key)
        return self._cancelled(answer)

    def stopped(self) -> str:
        job = self._started()
        time.sleep(self._chance.uniform(0.0, 1.0))
        answer = self._server.admin("DELETE", f"/runs/{job}")
        if answer.status != 200:
            raise Wrong(f"the admin could not stop a run: {answer.body[:200]!r}")
        return self._cancelled(self._server.call("GET", f"/jobs/{job}?wait=30", key=self._key))

    def refused(self) -> str:
        stranger = self._server.call("POST", self._path, {"userPrompt": "x"}, key="cb_stranger")
        mistaken = self._post({"userPrompt": "x", "noSuchField": 1})
        found = (stranger.status, mistaken.status)
        if found != (401, 400):
            raise Wrong(f"a stranger and a mistake got {found}")
        return "invalid_request"

    # --- asking -------------------------------------------------------------------------------------

    def _model(self) -> str:
        return self._chance.choice(PATHS[self._path])

    def _figures(self) -> str:
        """Usage as by chance, so that no two answers can be taken for one another in the books."""
        given = self._chance.randint
        return f"input={given(200, 900)} cached={given(0, 150)} output={given(1, 300)}"

    def _prompt(self, directives: str) -> str:
        return f"{self._tag} [[standin {directives}]]"

    def _body(self, directives: str, **fields: Any) -> dict[str, Any]:
        return {"userPrompt": self._prompt(directives), "model": self._model(), **fields}

    def _post(self, body: Mapping[str, Any], **headers: str) -> Answer:
        return self._server.call("POST", self._path, body, key=self._key, headers=headers, timeout_s=120)

    def _send(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=120)
        connection.request("POST", self._path, json.dumps(body), {"Authorization": f"Bearer {self._key}", **headers})
        return connection

    def _leave(self, body: Mapping[str, Any], after_s: float, headers: Mapping[str, str]) -> None:
        connection = self._send(body, headers)
        time.sleep(after_s)
        connection.close()

    def _started(self) -> str:
        answer = self._post(self._body(SLOW), Prefer="respond-async")
        if answer.status != 202:
            raise Wrong(f"a job was answered {answer.status}: {answer.body[:200]!r}")
        job: str = answer.json["id"]
        return job

    # --- judging ------------------------------------------------------------------------------------

    def _good(self, answer: Answer) -> str:
        if answer.status != 200:
            return self._failed(answer, set())
        return self._same(answer.json["content"][0]["text"], answer.json)

    def _same(self, text: str, answer: Mapping[str, Any]) -> str:
        if text.rstrip(".") != f"ECHO<{self._tag}>" or answer["content"][0]["text"] != text:
            raise Wrong(f"the answer to {self._tag} is {text[:100]!r}")
        return "ok"

    def _failed(self, answer: Answer, codes: set[str]) -> str:
        code = answer.json.get("code", f"status {answer.status}")
        if code not in codes | BUSY:
            raise Wrong(f"{answer.status} {answer.body[:300]!r}")
        return str(code)

    def _fetched(self, answer: Answer) -> str:
        if answer.status != 202:
            return self._failed(answer, set())
        deadline = time.monotonic() + 90
        while (job := self._server.call("GET", f"{answer.headers['location']}?wait=30", key=self._key).json)[
            "status"
        ] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise Wrong(f"a job did not end: {job}")
        if job["status"] != "done":
            raise Wrong(f"a job failed: {job['error']}")
        return self._same(job["result"]["content"][0]["text"], job["result"])

    def _cancelled(self, answer: Answer) -> str:
        if answer.status != 200 or answer.json["status"] != "failed":
            raise Wrong(f"a stopped job is {answer.body[:200]!r}")
        code: str = answer.json["error"]["code"]
        if code != "cancelled":
            raise Wrong(f"a stopped job failed with {code}")
        return code


def under_load(clients: list[Client], seconds: float, most: float = math.inf) -> Iterator[float]:
    """Let all clients go on for `seconds`, or until each has done `most` things, and finish what they have begun;
    yields now and then meanwhile, with the seconds that have passed."""
    began = time.monotonic()
    threads = [threading.Thread(target=client.run, args=(began + seconds, most)) for client in clients]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        yield time.monotonic() - began
        time.sleep(0.1)
