"""Every path that the SDKs ask for is served, or its answer says what the bridge has not and what to do instead."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import anthropic
import openai
import pytest

from bridge.http.app import document
from bridge.wire.absent import ABSENT, absent
from tests.contract.sdk.conftest import CODEX, Clients


def paths_of(sdk: ModuleType) -> set[str]:
    """The paths in the sources of an SDK, with `{names}` and below /v1."""
    assert sdk.__file__ is not None
    resources = (Path(sdk.__file__).parent / "resources").rglob("*.py")
    found = {path for file in resources for path in re.findall(r'"(/[a-z][^"?\s]*)', file.read_text())}
    return {"/v1/" + path.removeprefix("/v1").strip("/") for path in found}


@pytest.mark.parametrize("sdk", [openai, anthropic])
def test_no_path_of_an_sdk_leads_nowhere_without_a_word(sdk: ModuleType) -> None:
    paths = paths_of(sdk)
    assert len(paths) > 50
    served = {re.sub(r"{\w+}", "{}", path) for path in document()["paths"]}
    bare = {path for path in paths if re.sub(r"{\w+}", "{}", path) not in served and absent(path) is None}
    assert bare == set()


def test_no_path_of_the_bridge_s_own_is_taken_for_one_of_an_sdk() -> None:
    own = {path for path in document()["paths"] if not path.startswith("/v1/")}
    assert {path for path in own if absent(path) is not None} == set()


@pytest.mark.parametrize("path", [path.replace("*", "resp_1") for row in ABSENT for path in row.paths])
def test_what_is_absent_is_told_in_the_shape_of_its_api(clients: Clients, path: str) -> None:
    for spelled in (f"/v1/{path}", f"/{path}", f"/v1/v1/{path}/more"):
        told = absent(spelled)
        assert told is not None
        for headers in ({}, {"anthropic-version": "2023-06-01"}):
            answer = clients.server.call("POST", spelled, {"model": CODEX}, key=clients.key, headers=headers)
            error = answer.json["error"]
            assert (answer.status, error["type"], error["code"]) == (404, "not_found_error", "not_found")
            assert (error["message"].startswith(told.message), error["hint"]) == (True, told.hint)
            assert answer.headers["x-should-retry"] == "false"


def test_whoever_asks_for_embeddings_or_batches_is_told_what_to_do(clients: Clients) -> None:
    with pytest.raises(openai.NotFoundError, match=r"chat models only: it makes no embeddings.* Set another embedder"):
        clients.openai().embeddings.create(model="text-embedding-3-small", input="hello")
    with pytest.raises(openai.NotFoundError, match="keeps no files"):
        clients.openai().files.list()
    with pytest.raises(anthropic.NotFoundError, match=r"takes no batches.* one by one"):
        clients.anthropic().messages.batches.list()
