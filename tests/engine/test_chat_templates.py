"""Chat templates: the same text as transformers', and no template can hold up more than its own request."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from engine_launch import MODEL_NAME
from engine_process import EngineProcess, chat_body, run_in_engine_environment, start_engine
from model_folders import with_template

PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
HOSTILE = """
{%- if messages[0].content == 'loop' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}
{%- elif messages[0].content == 'compute' %}{{ messages[0].content|length ** (10 ** 9) }}
{%- elif messages[0].content == 'grow' %}{{ messages[0].content * 9999999999 }}
{%- elif messages[0].content == 'long' %}{{ messages[0].content * 9999999 }}
{%- elif messages[0].content == 'surrogate' %}{{ '\\ud800' }}
{%- elif messages[0].content == 'refuse' %}{{ raise_exception('not today') }}
{%- endif %}"""

REFUSALS = {
    "loop": "longer than 5 s",
    "compute": "longer than 5 s",
    "grow": "more than 512 MiB",
    "long": "more than 8388608 bytes",
    "surrogate": "surrogates not allowed",
    "refuse": "not today",
}

TEMPLATES = [
    None,
    "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}|{{ tools }}|{{ documents }}|{{ no_such_name }}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2, sort_keys=true) }}{{ '<é>' | tojson(ensure_ascii=true) }}",
    "{{ messages | tojson(separators=(',', ':')) }}",
    "{{ strftime_now('%Y-%m-%d') }}",
    "{% if messages[0].role == 'user' %}{{ raise_exception('no system message') }}{% endif %}ok",
    "  {% for m in messages %}\n  {% if loop.index > 1 %}{% break %}{% endif %}\n   {{ m.role | trim }}\n{% endfor %}",
    "{% set ns = namespace(a='', self=1) %}{% for m in messages %}{% set ns.a = m.role %}{% endfor %}{{ ns.a }}",
    "{% set ns = namespace(_hidden=1) %}{{ ns._hidden }}",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "{{ dict(a=1).a }}{{ dict.fromkeys(['b'], 2).b }}{{ dict.__class__ }}",
    "{{ messages.append(1) }}",
    "{{ ''.__class__.__mro__ }}",
    "{% include 'other' %}",
    "{% for",
    "{{ messages[99].content }}",
    "{{ 1 // 0 }}",
]
"""Everything that transformers adds to jinja2, and what its sandbox refuses."""

CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": " Grüße <b> 🦀\n\n"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": ""},
    ],
]


def test_every_template_gives_the_text_that_transformers_gives(model_folder: Path) -> None:
    """The model's own and those that use every extension, filter, name and limit of the sandbox."""
    given = [(template, chat, add) for template in TEMPLATES for chat in CHATS for add in (True, False)]
    program = Path(__file__).parent / "template_reference.py"
    pairs = run_in_engine_environment(program, str(model_folder), given=given)
    assert len(pairs) == len(given)
    for case, (reference, ours) in zip(given, pairs, strict=True):
        assert ours == reference, case
    refused = {template for (template, _, _), (reference, _) in zip(given, pairs, strict=True) if reference is None}
    assert None not in refused
    assert len(refused) >= 5


@pytest.fixture(scope="module")
def hostile(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine whose template does what the first message says."""
    folder = with_template(model_folder, tmp_path_factory.mktemp("hostile") / "model", HOSTILE + PLAIN)
    with start_engine(folder) as engine:
        engine.wait_ready()
        yield engine


def complete(client: httpx.Client) -> dict[str, Any]:
    """The answer to a plain completion."""
    body = {"model": MODEL_NAME, "prompt": "Hi", "max_tokens": 2, "ignore_eos": True}
    answer: dict[str, Any] = client.post("/v1/completions", json=body).json()
    return answer


@pytest.mark.parametrize("word", REFUSALS)
def test_a_template_that_asks_too_much_costs_its_own_request_only(hostile: EngineProcess, word: str) -> None:
    """It is refused by name, completions go on meanwhile, and the next chat is answered."""
    with ThreadPoolExecutor(1) as pool, hostile.new_client() as client:
        bad = pool.submit(client.post, "/v1/chat/completions", json=chat_body(word, max_tokens=2))
        while True:
            assert complete(hostile.client)["usage"]["completion_tokens"] == 2
            if bad.done():
                break
    refused = bad.result()
    assert refused.status_code == 400, refused.text
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("chat_template_error", "messages")
    assert REFUSALS[word] in error["message"]
    assert hostile.chat("Hi", max_tokens=2, ignore_eos=True)["usage"]["completion_tokens"] == 2


def test_a_template_that_always_loops_leaves_completions(model_folder: Path, tmp_path: Path) -> None:
    """The engine becomes ready, and its log says that chats will not work."""
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with start_engine(with_template(model_folder, tmp_path / "model", loop)) as engine:
        engine.wait_ready()
        assert "longer than 5 s" in engine.log.read_text()
        assert complete(engine.client)["usage"]["completion_tokens"] == 2


def test_the_worker_knows_no_secret_and_ends_with_its_engine(model_folder: Path) -> None:
    """A template's process has not the engine's token, and none is left when the engine is killed."""
    with start_engine(model_folder) as engine:
        engine.wait_ready()
        (worker,) = psutil.Process(engine.process.pid).children()
        assert "HEADRACE_ENGINE_TOKEN" not in worker.environ()
        engine.process.kill()
        engine.process.wait()
        assert psutil.wait_procs([worker], timeout=20) == ([worker], [])
