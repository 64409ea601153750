"""Tries a chat template in a process of its own, which `templates.rehearsal` starts and limits.

A template is the model folder's own program: it may loop for ever or ask for all memory. Here that ends this process
and nothing else. Run by its path, with the standard library and jinja2 only. The environment is that of transformers'
``apply_chat_template`` (``chat_template_utils.py``, 5.23): the same sandbox, extensions, filters and names.

Standard input has ``{"template", "for_tools", "tokens"}``, standard output ``{"syntax": [line, why] | null, "lost":
[[what, why], …], "turn": true | false}``.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

CPU_S = 3
"""A template that is one takes a few milliseconds."""

MEMORY_BYTES = 512 * 2**20

_WHY_CHARS = 300
_QUESTION, _ANSWER, _RULE, _RESULT = "Kingfisher1", "Kingfisher2", "Kingfisher3", "Kingfisher4"
"""Words that no template has, so that what is left out shows."""

_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "level_of",
            "description": "The level of a river.",
            "parameters": {
                "type": "object",
                "properties": {"river": {"type": "string", "description": "Its name."}},
                "required": ["river"],
            },
        },
    }
]


def main() -> None:
    """Answer the one question."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    question = json.load(sys.stdin)
    try:
        answer = _try(question)
    except MemoryError:
        answer = {"syntax": None, "lost": [["memory", "it takes more than 512 MiB of memory"]], "turn": True}
    json.dump(answer, sys.stdout)


def _environment() -> Any:
    from jinja2 import TemplateError, nodes  # noqa: PLC0415  # within the limits
    from jinja2.ext import Extension, loopcontrols  # noqa: PLC0415  # ditto
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415  # ditto

    class Generation(Extension):  # type: ignore[misc]  # jinja2 is Any where mypy runs
        """``{% generation %}``, which marks the assistant's words for training, and changes nothing here."""

        tags = {"generation"}  # noqa: RUF012  # jinja2's own way to declare them

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> Any:
            return caller()

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005  # as transformers
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _try(question: dict[str, Any]) -> dict[str, Any]:
    from jinja2 import TemplateAssertionError, TemplateSyntaxError  # noqa: PLC0415  # within the limits

    environment = _environment()
    try:
        chat = environment.from_string(question["template"])
        with_tools = environment.from_string(question["for_tools"]) if question["for_tools"] else chat
    except TemplateAssertionError as error:  # a filter or test that a newer library may have
        return {"syntax": None, "lost": [["everything", f"line {error.lineno}: {error.message}"]], "turn": True}
    except TemplateSyntaxError as error:
        return {"syntax": [error.lineno, str(error.message)[:_WHY_CHARS]], "lost": [], "turn": True}
    except RecursionError:
        return {"syntax": [1, "it is nested too deeply"], "lost": [], "turn": True}
    return _converse(chat, with_tools, question["tokens"])


def _converse(chat: Any, with_tools: Any, tokens: dict[str, str]) -> dict[str, Any]:
    ask, system = {"role": "user", "content": _QUESTION}, {"role": "system", "content": _RULE}
    answer, again = {"role": "assistant", "content": _ANSWER}, {"role": "user", "content": _RESULT}
    lost = []
    _, why = _say(chat, tokens, [ask], _QUESTION)
    if why:
        return {"syntax": None, "lost": [["everything", why]], "turn": True}
    _, why = _say(chat, tokens, [system, ask], _RULE)
    if why:
        lost.append(["system", why])
    _, why = _say(chat, tokens, [ask, answer, again], _RESULT)
    if why:
        lost.append(["turns", why])
    why = _say_tools(with_tools, tokens, ask)
    if why:
        lost.append(["tools", why])
    return {"syntax": None, "lost": lost, "turn": _leaves_the_turn(chat, tokens, ask, answer)}


def _say(template: Any, tokens: dict[str, str], messages: list[Any], marker: str, **more: Any) -> tuple[str, str]:
    """The prompt, or why there is none: contents as text, else as the parts that templates of images expect."""
    why = ""
    parts = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
    for form in (messages, parts):
        try:
            text = template.render(**{"add_generation_prompt": True, **tokens, **more}, messages=form)
        except MemoryError:
            raise
        except Exception as error:  # whatever a template raises is its refusal
            why = why or (str(error) or type(error).__name__)[:_WHY_CHARS]
            continue
        if marker in text:
            return text, ""
        why = why or "it leaves the message out"
    return "", why


def _say_tools(template: Any, tokens: dict[str, str], ask: dict[str, Any]) -> str:
    """Why a conversation with a tool call and its result is refused; empty if it is not."""
    first = ""
    arguments: list[Any] = [{"river": "Rhine"}, json.dumps({"river": "Rhine"})]  # templates expect one or the other
    for given in arguments:
        call = {"id": "call12345", "type": "function", "function": {"name": "level_of", "arguments": given}}
        messages = [
            ask,
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call12345", "name": "level_of", "content": _RESULT},
        ]
        _, why = _say(template, tokens, messages, _RESULT, tools=_TOOLS)
        if not why:
            return ""
        first = first or why
    return first


def _leaves_the_turn(chat: Any, tokens: dict[str, str], ask: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether a prompt ends where the model speaks next: marked by a header, or by there being none."""
    prompt, _ = _say(chat, tokens, [ask], _QUESTION)
    bare, _ = _say(chat, tokens, [ask], _QUESTION, add_generation_prompt=False)
    if prompt != bare:
        return True
    whole, why = _say(chat, tokens, [ask, answer], _ANSWER, add_generation_prompt=False)
    if why or not whole.startswith(prompt):
        return True  # nothing can be told
    return not whole[len(prompt) :].partition(_ANSWER)[0].strip()


if __name__ == "__main__":
    main()
