"""The house keeps its shape: arrows go one way, one module spawns, and nothing uses a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "bridge"
MODULES = sorted(PACKAGE.rglob("*.py"))

ROOT_MODULES = {"settings", "parsers", "errors", "types", "clock", "__init__"}
#: layer -> the layers that it may import
ALLOWED = {
    "root": {"root"},
    "ledger": {"root", "ledger"},
    "engine": {"root", "ledger", "engine"},
    "wire": {"root", "wire"},
    "service": {"root", "ledger", "engine"},
    "http": {"root", "ledger", "engine", "wire", "service", "http"},
    "ops": {"root", "ledger", "engine", "wire", "service", "http", "ops"},
    "cli": {"root", "ledger", "engine", "wire", "service", "http", "ops", "cli"},
}


def layer_of(parts: tuple[str, ...]) -> str:
    """The layer of a module, given its path below the package."""
    first = parts[0].removesuffix(".py") if parts else "__init__"
    if first in ROOT_MODULES:
        return "root"
    return "cli" if first == "__main__" else first


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_the_layers_below_it(path: Path) -> None:
    layer = layer_of(path.relative_to(PACKAGE).parts)
    for name in imports_of(path):
        if name.split(".")[0] == "bridge":
            target = layer_of(tuple(name.split(".")[1:]))
            target = "root" if target in ("__version__",) else target
            assert target in ALLOWED[layer], f"{layer} must not import {name}"


def test_only_the_process_module_starts_processes() -> None:
    spawners = ("subprocess", "gevent.subprocess", "os.system", "os.popen", "multiprocessing", "pty")
    for path in MODULES:
        if path.name == "process.py":
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


def test_modules_stay_readable() -> None:
    long = {str(p): n for p in MODULES if (n := len(p.read_text().splitlines())) > 400}
    assert not long
