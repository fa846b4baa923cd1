"""A stand-in for the model APIs behind the two CLIs, on a loopback port.

It speaks Anthropic Messages (`POST /v1/messages`) and OpenAI Responses (`POST /v1/responses`)
well enough for the real claude and codex CLIs, answers as the prompt's directives say
(see `script.Script`), and remembers everything that it was sent. Standard library only.

In a test::

    with StandIn() as standin:
        ...                                # point a CLI at standin.url
        assert not standin.side_traffic

As a command, with a control API under `/__requests`, `/__counts` and `/__script`::

    python -m tests.standin --port 0
"""

from .record import Recorded
from .script import Script, ScriptError, encode_calls, encode_text
from .server import StandIn

__all__ = ["Recorded", "Script", "ScriptError", "StandIn", "encode_calls", "encode_text"]
