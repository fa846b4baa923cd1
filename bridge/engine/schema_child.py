"""The process that looks at clients' schemas. See schema.py for why it is one of its own. It needs
nothing of the bridge, and is run as a file.

Each line of standard input is `{"schema": …, "output"?: …, "seconds": …}`; each line of standard output is a
sentence that says what is wrong, or null. A question that takes more `seconds` of processor time is given up.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

#: Memory that a check may use, in bytes.
MAX_MEMORY = 512 * 2**20


#: Dialects whose rules are loaded before the first question: afterwards no file can be opened.
_DIALECTS = (
    *("https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2019-09/schema"),
    *(f"http://json-schema.org/draft-0{number}/schema#" for number in (3, 4, 6, 7)),
)


class _TooLong(BaseException):
    """The time for a question is over. Not an Exception, so that nothing on the way takes it for an answer."""


def problem(question: dict[str, Any]) -> str | None:
    """What is wrong with the schema, or with the output by that schema; None where nothing is."""
    import jsonschema
    from jsonschema.exceptions import best_match
    from referencing import Registry

    schema = question["schema"]
    validator_of = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        validator_of.check_schema(schema)
        dangling = next((ref for ref in references(schema) if not resolves(schema, ref)), None)
        if dangling is not None:
            return f"it refers to {_shortened(dangling)!r}, which is not in it"
        # An empty registry: a `$ref` to another document is an error, never a fetch.
        validator = validator_of(schema, registry=Registry())
        if "output" not in question:
            next(validator.iter_errors({}), None)
            return None
        error = best_match(validator.iter_errors(question["output"]))
    except jsonschema.SchemaError as error:
        return f"{_shortened(error.message)} at {_path(error.absolute_path)}"
    except RecursionError:
        return "it refers to itself without end"
    except Exception as error:  # a reference that cannot be resolved, a pattern that is no pattern
        return _shortened(str(error) or type(error).__name__)
    return None if error is None else f"{_shortened(error.message)} at {_path(error.absolute_path)}"


def references(schema: Any) -> Iterator[str]:
    """Every `$ref` of a schema, leaving out what is data and not schema."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            yield from (part[name] for name in ("$ref", "$dynamicRef") if isinstance(part.get(name), str))
            waiting += [value for name, value in part.items() if name not in ("enum", "const", "default", "examples")]


def resolves(schema: Any, reference: str) -> bool:
    """Whether a reference leads to a place in the schema itself."""
    if reference == "#":
        return True
    if not reference.startswith("#/"):
        anchor = json.dumps(reference[1:])
        text = json.dumps(schema)
        return reference.startswith("#") and any(f'"{key}": {anchor}' in text for key in ("$anchor", "$dynamicAnchor"))
    place = schema
    for step in unquote(reference[2:]).split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict) and step in place:
            place = place[step]
        elif isinstance(place, list) and step.isdigit() and int(step) < len(place):
            place = place[int(step)]
        else:
            return False
    return True


def _path(parts: Any) -> str:
    return "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)


def _shortened(message: str) -> str:
    return message if len(message) <= 200 else message[:197] + "..."


def _give_up(number: int, frame: Any) -> None:
    raise _TooLong


def timed(question: dict[str, Any]) -> str | None:
    """The same as `problem`, within the question's time. `re` lets signals in, too."""
    try:
        signal.setitimer(signal.ITIMER_PROF, max(0.001, question["seconds"]))
        try:
            return problem(question)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except _TooLong:
        return "it takes too long to check"
    except MemoryError:
        return "it needs too much memory"


def main() -> None:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    signal.signal(signal.SIGPROF, _give_up)
    for dialect in _DIALECTS:
        # All that is loaded at first use, so that the first question is not the slow one.
        for pattern in ("^a$", 1):
            problem({"schema": {"$schema": dialect, "properties": {"a": {"pattern": pattern}}}, "output": {"a": "b"}})
    # What is open stays open; but no file, no socket and no process can be added.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(timed(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
