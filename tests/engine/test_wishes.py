"""What a version wishes of its engine and cannot have, on real engines; what it can have is in `test_odd_folders`."""

import ast
from pathlib import Path

import pytest
from engine_launch import ENGINES, environment_of, folder_for
from engine_process import start_engine

from headrace.runtimes.vllm.tool_calls import TOOL_PARSERS


@pytest.mark.parametrize("name", ENGINES)
def test_a_template_that_does_not_parse_ends_every_engine(name: str, tmp_path: Path) -> None:
    """Before it is ready, with the same code and the line."""
    path = tmp_path / "own.jinja"
    path.write_text("{% for m in messages %}")
    with start_engine(folder_for(name), engine=name, chat_template=path) as engine:
        fatal = engine.fatal()
    assert fatal["code"] == "CHAT_TEMPLATE_INVALID"
    assert "line 1" in fatal["evidence"]


def test_the_tool_parsers_are_those_of_vllm() -> None:
    """All that it registers, by name; read from its source, for importing it takes half a minute."""
    (source,) = environment_of("vllm").path.glob("lib/python3*/site-packages/vllm/tool_parsers/__init__.py")
    tables = [
        node.value
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_TOOL_PARSERS_TO_REGISTER"
    ]
    (names,) = [ast.literal_eval(table).keys() for table in tables]
    assert sorted(names) == sorted(TOOL_PARSERS)
