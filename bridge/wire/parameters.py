"""Parameters of other people's APIs: what becomes of each, and reading a body by that. Pure.

Every API that is spoken here besides the native one has a table of all its parameters. What the CLIs
cannot do is refused, but not where a client asks for what happens anyway: the API's own default. The
tables are also docs/compatibility.md and a part of /openapi.json, so that neither can say anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from bridge.wire import content
from bridge.wire.content import invalid, sentence

T = TypeVar("T")

#: why, of parameters that several APIs have
NO_TOOLS = "the CLIs are given no tools"
CACHED = "the CLIs decide what is cached"
SAMPLING = "the CLIs cannot set it; only 1, the default, is taken"

_anything = msgspec.json.Decoder()


class Parameter(msgspec.Struct, frozen=True):
    """One parameter. `note` says what it does, or why it does not; it follows the name and a colon."""

    name: str
    what: Literal["supported", "ignored", "refused"]
    note: str
    #: values of a refused one that are taken all the same; of objects, the fields that they must have
    only: tuple[Any, ...] = ()


def supported(name: str, note: str) -> Parameter:
    """A parameter that does what it does elsewhere, as far as `note` says."""
    return Parameter(name, "supported", note)


def ignored(name: str, note: str) -> Parameter:
    """A parameter that may be sent and changes nothing."""
    return Parameter(name, "ignored", note)


def refused(name: str, note: str, *only: Any) -> Parameter:
    """A parameter that is an error, with any value but `only` those."""
    return Parameter(name, "refused", note, only)


def table(*parameters: Parameter) -> Mapping[str, Parameter]:
    """The parameters of an API by name."""
    return {parameter.name: parameter for parameter in parameters}


def read(body: bytes, parameters: Mapping[str, Parameter], into: type[T]) -> T:
    """The supported part of a body. null counts as not given. Raises BridgeError (invalid_request)."""
    given = content.decode(body, _anything)
    if not isinstance(given, dict):
        raise invalid("The body must be a JSON object.")
    wanted = {}
    for name, value in given.items():
        parameter = parameters.get(name)
        if parameter is None:
            raise invalid(f"Unknown parameter {name[:100]!r}.", name[:100])
        if value is None or parameter.what == "ignored":
            continue
        if parameter.what == "supported":
            wanted[name] = value
        elif not _is_one_of(value, parameter.only):
            raise invalid(f"{name}: {parameter.note}.", name)
    try:
        return msgspec.convert(wanted, into)
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
