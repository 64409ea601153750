"""Each pattern that an end of vLLM is read by stands in the source line that it cites."""

import ast
import re
from pathlib import Path

import pytest
from engine_launch import environment_of

from headrace.runtimes.vllm.ending import SIGNS, Sign

CITED = re.compile(r"((?:vllm|transformers)/[\w/]+\.py):(\d+(?:, \d+)*)")

FILLED = {"cls": "<class 'transformers.models.Some'>", "shm_path": "/dev/shm"}
"""What a message has for a name, where a pattern asks for more than a number."""

CALLS = {"layers/linear.py": "narrow", "launchers/launcher.py": "bind"}
"""Files whose cited lines do not write the sentence but call the library that does."""


def cited(sign: Sign) -> list[tuple[Path, int]]:
    """Files and lines, from 1; none for what a library writes."""
    [site] = environment_of("vllm").path.glob("lib/python3*/site-packages")
    places = CITED.findall(sign.source)
    return [(site / path, int(number)) for path, numbers in places for number in numbers.split(", ")]


def sentence(path: Path, line: int) -> str:
    """The text that a line is a part of, with something in each of its gaps."""
    texts = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr | ast.Constant) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(map(_written, texts), key=len, default="")


def _written(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    gaps = (FILLED.get(ast.unparse(one.value), "7") for one in node.values if isinstance(one, ast.FormattedValue))
    return "".join(_written(one) if isinstance(one, ast.Constant) else next(gaps) for one in node.values)


@pytest.mark.parametrize("sign", [sign for sign in SIGNS if CITED.search(sign.source)], ids=lambda one: one.source)
def test_a_pattern_is_in_the_line_that_it_cites(sign: Sign) -> None:
    """Of the version that is installed here: the line writes the sentence, or calls what does."""
    for path, line in cited(sign):
        called = next((name for end, name in CALLS.items() if str(path).endswith(end)), "")
        if called:
            assert f".{called}(" in path.read_text().splitlines()[line - 1]
        else:
            assert sign.pattern.search(sentence(path, line)), (sign.pattern.pattern, sentence(path, line))


def test_hardly_any_pattern_cites_nothing() -> None:
    """Only what a library of Rust writes, and what no sentence tells."""
    assert [sign.error.code for sign in SIGNS if not cited(sign)] == ["WEIGHTS_TRUNCATED", "TOKENIZER_INVALID"]
