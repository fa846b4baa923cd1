"""The server with both model APIs, its records, and its control API."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from .handler import Handler
from .record import Journal, Recorded
from .script import Script, ScriptError


class StandIn(ThreadingHTTPServer):
    """Both model APIs on a loopback port.

    ::

        with StandIn() as standin:
            run_the_cli(ANTHROPIC_BASE_URL=standin.url)
            assert [r.model for r in standin.requests] == ["claude-opus-5-5"]
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, port: int = 0, **directives: object) -> None:
        self.journal = Journal()
        self.default = Script().with_(**directives)
        self.by_key: dict[str, Script] = {}
        self.stopping = threading.Event()
        self.connections: dict[threading.Thread, socket.socket] = {}
        self._thread: threading.Thread | None = None
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """Base URL for the claude CLI (ANTHROPIC_BASE_URL)."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def openai_url(self) -> str:
        """Base URL for a provider of the codex CLI."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[Recorded]:
        """All requests so far, the control API's own left out."""
        return self.journal.all()

    @property
    def generations(self) -> list[Recorded]:
        """The requests that ask a model for an answer."""
        return [r for r in self.requests if r.generates]

    @property
    def side_traffic(self) -> list[Recorded]:
        """All other requests: a lean CLI makes none."""
        return [r for r in self.requests if not r.generates]

    def script(self, **directives: object) -> None:
        """Set the default for prompts without directives of their own; none: back to "ok"."""
        self.default = Script().with_(**directives)

    def script_key(self, key: str, **directives: object) -> None:
        """Set what an API key gets, for prompts without directives of their own; none: what all others get."""
        if directives:
            self.by_key[key] = Script().with_(**directives)
        else:
            self.by_key.pop(key, None)

    def script_of(self, key: str) -> Script:
        """What an API key gets."""
        return self.by_key.get(key, self.default)

    def wait(self, wanted: Callable[[list[Recorded]], bool], timeout_s: float = 10.0) -> list[Recorded]:
        """Block until the records fulfil `wanted`. Raises TimeoutError."""
        return self.journal.wait(wanted, timeout_s)

    def control(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """The control API: status and JSON for `GET /__requests` and the like."""
        match method, path:
            case "GET", "/__requests":
                return 200, [r.as_json() for r in self.journal.all()]
            case "DELETE", "/__requests":
                self.journal.clear()
                return 200, {}
            case "GET", "/__counts":
                return 200, self.journal.counts()
            case "POST", "/__script":
                if not isinstance(body or {}, dict):
                    return 400, {"error": "want an object of directives"}
                try:
                    self.script(**(body or {}))
                except ScriptError as error:
                    return 400, {"error": str(error)}
                return 200, {}
        return 404, {"error": f"no {method} {path}"}

    def start(self) -> Self:
        """Serve from a thread."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="standin", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and end every connection, the hanging ones too."""
        self.stopping.set()
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        self.server_close()
        for thread, connection in list(self.connections.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(2.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the stand-in's; its record tells of it."""
