"""Parameters of other people's APIs: what becomes of each, and reading a body by that. Pure.

Every API that is spoken here besides the native one has a table of all its parameters. What would change what an
answer means, and cannot be done, is refused, but not where a client asks for what happens anyway: the API's own
default. What only colours an answer is passed over, and named to the client, and so is what no table knows: APIs grow.
The tables are also docs/compatibility.md and a part of /openapi.json, so that neither can say anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, TypeVar

import msgspec

from bridge.errors import BridgeError
from bridge.wire import content
from bridge.wire.content import invalid, sentence

T = TypeVar("T")

#: why, of parameters that several APIs have
CACHED = "the CLIs decide what is cached"
#: what SAMPLED has instead, of parameters that no CLI takes
SAMPLING = "the CLIs cannot set it"
#: of what only some models take
SAMPLED = "where the model takes it, else passed over; see Sampling below"

#: Names that a header can carry, and the most of them.
_SHOWN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MOST_NAMES = 20

_anything = msgspec.json.Decoder()


class Parameter(msgspec.Struct, frozen=True):
    """One parameter. `note` says what it does, or why it does not; it follows the name and a colon."""

    name: str
    what: Literal["supported", "ignored", "passed over", "refused"]
    note: str
    #: values that ask for what happens anyway; of objects, the fields that they must have
    only: tuple[Any, ...] = ()
    #: the sentence of a refusal where clients act on the API's own words, with `{value}`; and facts of the error
    words: str | None = None
    facts: Mapping[str, Any] = {}

    def refusal(self, value: Any) -> BridgeError:
        """The error of a value that is refused."""
        said, hint = f"{self.name}: {self.note}.", None
        if self.words is not None:
            said, hint = self.words.format(value=str(value)[:100]), f"{self.note[:1].upper()}{self.note[1:]}."
        return BridgeError("invalid_request", said, hint, param=self.name, **self.facts)


def supported(name: str, note: str) -> Parameter:
    """A parameter that does what it does elsewhere, as far as `note` says."""
    return Parameter(name, "supported", note)


def ignored(name: str, note: str) -> Parameter:
    """A parameter that may be sent and asks for nothing that an answer shows."""
    return Parameter(name, "ignored", note)


def passed_over(name: str, note: str, *only: Any) -> Parameter:
    """A parameter that may be sent, and is named in the header of what was passed over, with any value but `only`
    those."""
    return Parameter(name, "passed over", note, only)


def refused(name: str, note: str, *only: Any, words: str | None = None, **facts: Any) -> Parameter:
    """A parameter that is an error, with any value but `only` those."""
    return Parameter(name, "refused", note, only, words, facts)


def table(*parameters: Parameter) -> Mapping[str, Parameter]:
    """The parameters of an API by name."""
    return {parameter.name: parameter for parameter in parameters}


def shown(names: Iterable[str]) -> tuple[str, ...]:
    """Names of what was passed over as a header can carry them, each once: a client may have made them up."""
    return tuple(islice(filter(_SHOWN_NAME.fullmatch, dict.fromkeys(names)), MOST_NAMES))


def read(body: bytes, parameters: Mapping[str, Parameter], into: type[T]) -> tuple[T, list[str]]:
    """The supported part of a body, and the names of what is passed over, as they are. null counts as not given.
    Raises BridgeError (invalid_request)."""
    given = content.decode(body, _anything)
    if not isinstance(given, dict):
        raise invalid("The body must be a JSON object.")
    wanted, over = {}, []
    for name, value in given.items():
        parameter = parameters.get(name)
        if value is None:
            continue
        if parameter is None:
            over.append(name)
        elif parameter.what == "supported":
            wanted[name] = value
        elif parameter.what != "ignored" and not _is_one_of(value, parameter.only):
            if parameter.what == "refused":
                raise parameter.refusal(value)
            over.append(name)
    try:
        return msgspec.convert(wanted, into), over
    except msgspec.ValidationError as error:
        told = sentence(str(error))
        raise invalid(told, _first_field(told, parameters)) from None
    except RecursionError:
        raise invalid("The body is nested too deep.") from None


def _is_one_of(value: Any, only: Sequence[Any]) -> bool:
    for each in only:
        if isinstance(each, dict) and each and isinstance(value, dict):
            if all(value.get(name) == wanted for name, wanted in each.items()):
                return True
        # 1 and 1.0 are the same number to a client, but true is none.
        elif value == each and isinstance(value, bool) == isinstance(each, bool):
            return True
    return False


def _first_field(told: str, parameters: Mapping[str, Parameter]) -> str | None:
    """The parameter that a sentence begins with, if it does."""
    name = told.partition(":")[0].partition(".")[0].partition("[")[0]
    return name if name in parameters else None
