"""The process that looks at clients' schemas. See schema.py for why it is one of its own.

Each line of standard input is `{"schema": …, "output"?: …}`; each line of standard output is a
sentence that says what is wrong, or null.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

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


def _path(parts: Any) -> str:
    return "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)


def _shortened(message: str) -> str:
    return message if len(message) <= 200 else message[:197] + "..."


def main() -> None:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    for line in sys.stdin.buffer:
        try:
            answer = problem(json.loads(line))
        except MemoryError:
            answer = "it needs too much memory"
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
