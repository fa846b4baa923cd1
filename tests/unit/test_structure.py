"""The house keeps its shape: arrows go one way, one module spawns, and nothing uses a shell."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "bridge"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: modules that lie in no room; every room may import them
ROOT = {"settings", "registry", "parsers", "errors", "types", "limits", "clock", "masks", "__init__", "__version__"}
#: room -> the rooms that it may import, itself and the root aside
ARROWS: dict[str, set[str]] = {
    "root": set(),
    "store": set(),
    "sandbox": set(),
    "gate": set(),
    "wire": set(),
    "keys": {"store"},
    "ledger": {"store"},
    "records": {"store", "keys", "ledger"},
    "providers": {"gate", "sandbox", "store"},
    "engine": {"store", "keys", "ledger", "records", "sandbox", "gate", "providers"},
    "service": {"store", "keys", "ledger", "records", "sandbox", "gate", "providers", "engine"},
    "http": {"store", "keys", "ledger", "records", "sandbox", "gate", "providers", "engine", "wire", "service"},
}
ARROWS["ops"] = {*ARROWS["http"], "http"}
ARROWS["cli"] = {*ARROWS["ops"], "ops"}


def room_of(name: str) -> str:
    """The room of a module, given its dotted name below the package."""
    first = name.split(".")[0]
    if first in ROOT or not first:
        return "root"
    return "cli" if first == "__main__" else first


def name_of(path: Path) -> str:
    """The dotted name of a module below the package; that of a folder for its `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def imports_of(path: Path) -> Iterator[str]:
    """Everything that a module imports, by its full name; also what it imports inside of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def own_imports(path: Path) -> set[str]:
    """The modules of the package that a module imports, by their names below it."""
    found = set()
    for name in imports_of(path):
        if name.startswith("bridge."):
            below = name.removeprefix("bridge.")
            found.add(below if below in NAMES else below.rpartition(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_the_rooms_that_its_own_may_see(path: Path) -> None:
    room = room_of(name_of(path))
    for name in own_imports(path):
        assert room_of(name) in ARROWS[room] | {room, "root"}, f"{room} must not import {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    waiting = {name_of(path): own_imports(path) - {name_of(path)} for path in MODULES}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"these import each other: {sorted(waiting)}"


def test_no_public_class_name_exists_twice() -> None:
    names = Counter(
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not {name for name, count in names.items() if count > 1}


def test_only_the_child_module_starts_processes() -> None:
    spawners = ("subprocess", "gevent.subprocess", "os.system", "os.popen", "multiprocessing", "pty")
    for path in MODULES:
        if path == PACKAGE / "sandbox" / "child.py":
            continue
        for name in imports_of(path):
            assert not name.startswith(spawners), f"{path} imports {name}"
        source = path.read_text()
        for call in ("os.fork", "os.exec", "os.spawn", "posix_spawn"):
            assert call not in source, f"{path} uses {call}"


def test_nothing_uses_a_shell() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword):
                assert node.arg != "shell", f"{path} passes shell="
