"""The process that looks at clients' schemas. See schema.py for why it is one of its own.

Each line of standard input is `{"schema": …, "output"?: …}`; each line of standard output is a
sentence that says what is wrong, or null.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

#: Memory that a check may use, in bytes.
MAX_MEMORY = 512 * 2**20


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


def main() -> None:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    import jsonschema  # noqa: F401  (before the first question, so that its check is not the slow one)

    print("ready", flush=True)
    for line in sys.stdin.buffer:
        try:
            answer = problem(json.loads(line))
        except MemoryError:
            answer = "it needs too much memory"
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
