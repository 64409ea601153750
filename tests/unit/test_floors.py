"""The house's import rule, held: imports only run downwards (docs/architecture.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace

SRC = Path(headrace.__file__).parent.parent
FLOORS = {
    "resources": 0,
    "contracts": 1,
    "weights": 2,
    "capacity": 2,
    "hardware": 2,
    "catalogue": 2,
    "request_log": 3,
    "runtimes": 3,
    "compute": 3,
    "store": 3,
    "storage": 3,
    "gateway": 4,
    "control": 5,
    "node": 5,
    "api": 6,
    "server": 7,
    "cli": 8,
}
STRANGERS = {3: {"request_log", "runtimes", "compute", "store", "storage"}}
NEVER = {
    "gateway": {"fastapi", "starlette", "google", "grpc", "sqlalchemy", "torch"},
    "cli": {"sqlalchemy", "fastapi", "google", "grpc", "torch"},
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            yield node.module or ""


def _modules(root: str) -> list[Path]:
    return sorted((SRC / root).rglob("*.py"))


def test_every_folder_has_its_floor() -> None:
    """Each package of headrace stands in the table of floors, so that none escapes the rule."""
    folders = {path.parent.name for path in (SRC / "headrace").glob("*/__init__.py")}
    assert folders == set(FLOORS)


@pytest.mark.parametrize("path", _modules("headrace"), ids=lambda path: str(path.relative_to(SRC)))
def test_imports_run_downwards(path: Path) -> None:
    """No module imports a floor above its own, and the five of floor 3 do not know each other."""
    parts = path.relative_to(SRC / "headrace").parts
    if len(parts) == 1:
        return
    own = parts[0]
    for name in _imports(path):
        top, _, rest = name.partition(".")
        assert top != "headrace_engines" or (own, rest) == ("runtimes", ""), f"{path} imports the engines"
        assert top not in NEVER.get(own, set()), f"{path} imports {top}"
        assert top != "torch", f"{path}: the control side never imports torch"
        folder = rest.partition(".")[0]
        if top != "headrace" or not folder or folder.startswith("_"):
            continue
        assert FLOORS[folder] <= FLOORS[own], f"{path} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[folder]})"
        strangers = STRANGERS.get(FLOORS[own], set()) - {own}
        assert folder not in strangers, f"{path} imports its neighbour {name}"


def test_contracts_of_the_api_do_not_know_each_other() -> None:
    """Each contract's folder under `api` stands alone."""
    contracts = {"vertex", "openai", "databricks", "watsonx", "oip", "native", "internal"}
    for path in _modules("headrace/api"):
        own = path.relative_to(SRC / "headrace" / "api").parts[0]
        if own in contracts:
            others = {f"headrace.api.{name}" for name in contracts - {own}}
            assert not [name for name in _imports(path) if ".".join(name.split(".")[:3]) in others], path


@pytest.mark.parametrize("path", _modules("headrace_engines"), ids=lambda path: str(path.relative_to(SRC)))
def test_engines_stand_alone(path: Path) -> None:
    """The engines run in environments where headrace is not installed, so they never import it."""
    assert not [name for name in _imports(path) if name.split(".")[0] == "headrace"]


def test_the_command_starts_light() -> None:
    """`headrace version` loads no server, database or numerics: it must feel instant."""
    code = "import sys, headrace.cli; print(*sorted(m.split('.')[0] for m in sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert not loaded & {"numpy", "sqlalchemy", "fastapi", "uvicorn", "gguf", "alembic", "torch"}
