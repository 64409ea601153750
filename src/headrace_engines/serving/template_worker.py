"""Renders chat templates in a process of its own, which `serving.template_process` starts and may lose.

A template is the model folder's own program: it may loop for ever or ask for all memory. Here that ends this process
and nothing else. Run by its path, with the standard library and jinja2 only, so that it starts in a tenth of a second.

The environment is that of transformers' ``apply_chat_template`` (``chat_template_utils.py``, 5.23): the same sandbox,
extensions, filters and names. A test holds the two against each other.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_MESSAGE_MAX_CHARS = 2000


class _GenerationBlock(Extension):  # type: ignore[misc]
    """``{% generation %}``, which marks the assistant's words for training, and changes nothing here."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own way to declare them

    def parse(self, parser: Any) -> Any:
        """The block's body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> Any:
        return caller()


class _Dict:
    """``dict`` without what leads out of the sandbox."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As the class method of `dict`."""
        return dict.fromkeys(*args)


class _Namespace(Namespace):  # type: ignore[misc]
    """``namespace`` that takes no name with a leading underscore."""

    def __init__(*args: Any, **values: Any) -> None:
        # No `self` by name, so that a template may say namespace(self=...).
        attributes = dict(*args[1:], **values)
        for name in attributes:
            _require_public(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        Namespace.__setitem__(self, name, value)


def _require_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005 - local time, as in transformers


@lru_cache(maxsize=1)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment.from_string(template)


def _answer(content: bytes, memory_bytes: int, text_bytes: int) -> tuple[bool, bytes]:
    """The prompt, or False and why there is none."""
    try:
        request = json.loads(content)
        template = _compiled(request["template"])
        if "variables" not in request:  # asked only whether it parses
            return True, b""
        text = template.render(**request["variables"]).encode()
    except MemoryError:
        return False, b"The model's chat template takes more than %d MiB of memory." % (memory_bytes >> 20)
    except TemplateSyntaxError as error:
        reason = (error.message or "it is no template")[:_MESSAGE_MAX_CHARS].rstrip(".")
        return False, f"The model's chat template does not parse: line {error.lineno}: {reason}.".encode(
            errors="replace"
        )
    except Exception as error:  # whatever a template raises is its refusal
        reason = str(error)[:_MESSAGE_MAX_CHARS]
        return False, f"The model's chat template refuses these messages: {reason}.".encode(errors="replace")
    if len(text) > text_bytes:
        return False, b"The model's chat template makes more than %d bytes of these messages." % text_bytes
    return True, text


def main() -> None:
    """Answer requests until standard input ends. The alarm has no handler: it ends the process wherever it is."""
    timeout_s, memory_bytes, text_bytes = (int(argument) for argument in sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the engine still drains; this ends with it
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answer = (True, b"")  # to nobody's request: it says that all imports were there
    while True:
        answers.write(struct.pack(">?I", answer[0], len(answer[1])) + answer[1])
        answers.flush()
        header = requests.read(4)
        if not header:
            return
        (length,) = struct.unpack(">I", header)
        content = requests.read(length)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        answer = _answer(content, memory_bytes, text_bytes)
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
