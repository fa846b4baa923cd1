"""Posts alerts to a URL of the operator's: never in a request's way, and never for ever.

The URL comes from the settings alone; nothing that a client sends can change where a post goes, and no
redirect is followed.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import gevent
import gevent.event

log = logging.getLogger("bridge")

#: Pauses before each further try, in seconds. After the last one an alert is given up.
PAUSES_S = (1.0, 10.0, 60.0, 300.0, 900.0)
#: Longest that one try may take, in seconds.
TIMEOUT_S = 10.0
#: Alerts that wait to be sent; past that the oldest is dropped.
MOST_WAITING = 100
#: Longest pause that the other side may ask for with Retry-After, in seconds.
LONGEST_PAUSE_S = 3600.0

_ANSWER_BYTES = 4096
_SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
_DISCORD_HOSTS = ("discord.com", "discordapp.com", "ptb.discord.com", "canary.discord.com")

Post = Mapping[str, Any]
"""An alert as it is posted: kind, subject, message, at."""


class Rejected(Exception):
    """The other side did not take a post. `final`: it will not take it later either."""

    def __init__(self, message: str, *, final: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.final = final
        self.retry_after_s = retry_after_s


def format_of(url: str, setting: str) -> str:
    """json, slack or discord: as set, or by the host of the URL."""
    if setting != "auto":
        return setting
    host = urlsplit(url).hostname or ""
    return "slack" if host in _SLACK_HOSTS else "discord" if host in _DISCORD_HOSTS else "json"


def body_of(post: Post, shape: str) -> dict[str, Any]:
    """What is sent. Slack: https://api.slack.com/messaging/webhooks; Discord:
    https://discord.com/developers/docs/resources/webhook#execute-webhook."""
    host = socket.gethostname()
    text = f"cli-bridge on {host}: {post['message']}"
    if shape == "slack":
        # The three characters that Slack reads as markup.
        return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    if shape == "discord":
        return {"content": text[:2000], "allowed_mentions": {"parse": []}}
    return {"source": "cli-bridge", "host": host, **post}


def send(url: str, body: Mapping[str, Any]) -> None:
    """One try. Raises Rejected."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    data = json.dumps(body).encode()
    try:
        with gevent.Timeout(TIMEOUT_S, TimeoutError(f"no answer within {TIMEOUT_S:g} seconds")):
            connection = _connection(parts.scheme, parts.hostname or "", parts.port)
            try:
                headers = {"Content-Type": "application/json", "User-Agent": "cli-bridge", **_credentials(url)}
                connection.request("POST", path, data, headers)
                answer = connection.getresponse()
                answer.read(_ANSWER_BYTES)
            finally:
                connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise Rejected(str(error) or type(error).__name__) from None
    if not 200 <= answer.status < 300:
        # A redirect is not followed: whoever answers must not choose where the next post goes.
        final = answer.status < 500 and answer.status not in (408, 425, 429)
        raise Rejected(
            f"it answered {answer.status}", final=final, retry_after_s=_seconds(answer.headers.get("Retry-After"))
        )


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)


def _credentials(url: str) -> dict[str, str]:
    """The header for `https://user:password@host/`."""
    name, at, _ = urlsplit(url).netloc.rpartition("@")
    return {"Authorization": "Basic " + base64.b64encode(unquote(name).encode()).decode()} if at else {}


def _seconds(text: str | None) -> float | None:
    return min(float(text), LONGEST_PAUSE_S) if text and text.isascii() and text.isdecimal() else None


class Webhook:
    """A queue of posts, and one greenlet that sends them in turn."""

    def __init__(self, url: str, setting: str, done: Callable[[Post], None]) -> None:
        """`done(post)` is called when one has been sent, or given up for good."""
        self._url = url
        self._shape = format_of(url, setting)
        self._done = done
        self._waiting: deque[Post] = deque()
        self._more = gevent.event.Event()
        self._sender = gevent.spawn(self._run)

    def put(self, post: Post) -> None:
        """Send it soon. Returns at once."""
        if len(self._waiting) >= MOST_WAITING:
            dropped = self._waiting.popleft()
            log.warning("too many alerts wait for the webhook; one was dropped: %s", dropped["message"])
            self._done(dropped)
        self._waiting.append(post)
        self._more.set()

    def close(self) -> None:
        """Stop; what still waits is not sent."""
        self._sender.kill()

    def _run(self) -> None:
        while True:
            self._more.wait()
            self._more.clear()
            while self._waiting:
                post = self._waiting.popleft()
                self._deliver(post)
                self._done(post)

    def _deliver(self, post: Post) -> None:
        for pause_s in (*PAUSES_S, None):
            try:
                send(self._url, body_of(post, self._shape))
                return
            except Rejected as error:
                if error.final or pause_s is None:
                    log.warning("an alert could not be posted to the webhook: %s", error)
                    return
                gevent.sleep(max(pause_s, error.retry_after_s or 0.0))
