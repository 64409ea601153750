"""What documents say of tests: each one that is named is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"": "unit", "u": "unit", "e": "engine", "s": "system"}
NAMED = re.compile(r"(?:\b(u|e|s|engine|system|clients)/)?\b((?:test_\w+/)?test_\w+)(?:\.py)?(?:::(\w+))?|::(\w+)")


def test_every_test_that_a_document_names_is_there() -> None:
    """File and name; ``::name`` alone is one of the file named before it."""
    gone = []
    for document in sorted((ROOT / "docs" / "issues").glob("*.md")):
        file, text = "", ""
        for found in NAMED.finditer(document.read_text()):
            folder, path, name, alone = found.groups(default="")
            if path:
                file = f"tests/{FOLDERS.get(folder, folder)}/{path}"
                text = _text(ROOT / file)
            if not text or (name or alone) not in text:
                gone.append(f"{document.name}: {file}::{name or alone}")
    assert gone == []


def _text(path: Path) -> str:
    """Of a file of tests, wherever below its folder it is, or of all files of a folder."""
    if path.is_dir():
        return "".join(each.read_text() for each in path.glob("*.py"))
    tests = ROOT / "tests" / path.relative_to(ROOT / "tests").parts[0]
    return "".join(each.read_text() for each in tests.rglob(f"{path.stem}.py"))
