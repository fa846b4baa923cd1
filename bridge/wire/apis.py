"""All APIs by name: what a job was asked by says how its answer looks."""

from __future__ import annotations

from bridge.wire import native_answer
from bridge.wire.api import Api

APIS: dict[str, Api] = {api.name: api for api in (native_answer.API,)}
