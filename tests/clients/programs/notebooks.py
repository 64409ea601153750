"""Notebooks by Jupyter's own libraries: each one named is checked against its format; the last is executed if asked."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

*paths, executed = [Path(each) for each in sys.argv[1:]]
for path in (*paths, executed):
    nbformat.validate(nbformat.read(path, as_version=4))
notebook = nbformat.read(executed, as_version=4)
NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        print(output.get("text", ""))
