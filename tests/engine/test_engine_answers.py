"""What engines answer: whole and in pieces, alone and in company, counted exactly."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from engine_launch import MAX_MODEL_LEN, MODEL_NAME
from engine_process import EngineProcess, chat_body, completion_body
from reference_cases import GREEDY_TOKENS, PROMPTS, SAMPLED_PROMPT, SAMPLING

AS_GENERATE = pytest.mark.engines("transformers")
"""No golden text of the others: their arithmetic rounds differently and near-ties flip (`test_engine_likelihood`)."""

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def counts(answer: dict[str, Any]) -> tuple[int, ...]:
    """The three counts of an answer's usage."""
    return tuple(answer["usage"][name] for name in COUNTS)


def check_greedy(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Text, end and counts are those of the reference."""
    assert answer["choices"][0]["message"]["content"] == expected["text"]
    assert answer["choices"][0]["finish_reason"] == ("stop" if expected["ended"] else "length")
    prompt, completion = len(expected["prompt_ids"]), len(expected["new_ids"])
    assert counts(answer) == (prompt, completion, prompt + completion)


@AS_GENERATE
@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_greedy_is_what_generate_says(engine: EngineProcess, reference: dict[str, Any], index: int) -> None:
    """Text, finish reason and token counts are those of ``model.generate(do_sample=False)``."""
    check_greedy(engine.chat(PROMPTS[index], max_tokens=GREEDY_TOKENS), reference["greedy"][index])


def test_a_prompt_of_token_ids_is_taken_as_it_is(engine: EngineProcess) -> None:
    """Completions of token ids, alone or in a list, are those of the text that has these ids."""
    text = "The sea is deep, and the sky is"
    of_text = engine.complete(text, max_tokens=8)
    for prompt in (engine.tokens(text), [engine.tokens(text)]):
        answer = engine.post("/v1/completions", completion_body("") | {"prompt": prompt, "max_tokens": 8})
        assert answer["choices"][0]["text"] == of_text["choices"][0]["text"]
        assert answer["object"] == "text_completion"


def test_several_prompts_get_a_choice_each(engine: EngineProcess) -> None:
    """In the order of the prompts, and counted together."""
    prompts = ["The capital of Japan is", "One, two, three,"]
    alone = [engine.complete(prompt, max_tokens=4, ignore_eos=True) for prompt in prompts]
    together = engine.post("/v1/completions", completion_body("", max_tokens=4, ignore_eos=True) | {"prompt": prompts})
    assert [choice["index"] for choice in together["choices"]] == [0, 1]
    assert [choice["text"] for choice in together["choices"]] == [each["choices"][0]["text"] for each in alone]
    assert counts(together) == tuple(map(sum, zip(*map(counts, alone), strict=True)))


def test_completions_stop_after_sixteen_tokens_by_default(engine: EngineProcess) -> None:
    """OpenAI's default for completions is kept."""
    assert counts(engine.complete("Once upon a time", ignore_eos=True))[1] == 16


def test_a_chat_runs_to_its_end_by_default(engine: EngineProcess) -> None:
    """Without a token budget a chat ends when the model ends it."""
    assert engine.chat("What is 2 + 2?")["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.1, "seed": 5}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_pieces_of_a_stream_make_the_whole(engine: EngineProcess, prompt: str, sampling: dict[str, float]) -> None:
    """Streamed text put together, finish reason and usage are those of the answer at once."""
    parameters = {"max_tokens": 40} | sampling
    whole = engine.chat(prompt, **parameters)
    body = chat_body(prompt, **parameters, stream_options={"include_usage": True})
    *chunks, last = engine.stream("/v1/chat/completions", body)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    pieces = [delta.get("content") or "" for delta in deltas]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert (last["choices"], counts(last)) == ([], counts(whole))
    assert {chunk["object"] for chunk in [*chunks, last]} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in [*chunks, last]}) == 1


def test_a_completion_streams_too(engine: EngineProcess) -> None:
    """The older route streams text, without usage unless asked."""
    whole = engine.complete("Once upon a time", max_tokens=12)
    chunks = list(engine.stream("/v1/completions", completion_body("Once upon a time", max_tokens=12)))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]
    assert not any(chunk.get("usage") for chunk in chunks)


def test_usage_counts_as_tokenize_does(engine: EngineProcess) -> None:
    """The prompt has as many tokens as the same messages; the completion as many as its text, and one for its end."""
    for prompt in PROMPTS[:4]:
        messages = chat_body(prompt)["messages"]
        tokenized = engine.post("/tokenize", {"model": MODEL_NAME, "messages": messages})
        assert (tokenized["count"], tokenized["max_model_len"]) == (len(tokenized["tokens"]), MAX_MODEL_LEN)
        answer = engine.chat(prompt, max_tokens=GREEDY_TOKENS)
        choice = answer["choices"][0]
        completion = len(engine.tokens(choice["message"]["content"])) + (choice["finish_reason"] == "stop")
        assert counts(answer) == (tokenized["count"], completion, tokenized["count"] + completion)


def test_a_text_comes_back_from_its_tokens(engine: EngineProcess) -> None:
    """Echoed, a prompt of a text's token ids is that text, whatever it is made of."""
    for text in (
        "Hello",
        " leading and  double spaces\n",
        "Grüße 🦀 日本語",
        "<|im_start|>user\nHi<|im_end|>",
        "1,234.5",
    ):
        tokens = engine.tokens(text)
        echoed = engine.complete(tokens, echo=True, max_tokens=1)["choices"][0]["text"]
        assert echoed.startswith(text), echoed


def test_tokens_become_text_again(engine: EngineProcess) -> None:
    """What was tokenised comes back from its ids; what is no id is a 400."""
    text = "Grüße 🦀, 1,234.5"
    assert engine.post("/detokenize", {"model": MODEL_NAME, "tokens": engine.tokens(text)})["prompt"] == text
    for ids in ([10**20], [-1], ["a"], "a"):
        response = engine.client.post("/detokenize", json={"model": MODEL_NAME, "tokens": ids})
        assert response.status_code == 400, (ids, response.text)


def test_extreme_sampling_is_no_harm(engine: EngineProcess) -> None:
    """Values at the edge of float32, or far beyond any integer, get an answer or a 400, and the engine goes on."""
    edges: list[dict[str, Any]] = [
        {"top_p": 1e-300},
        {"top_p": 5e-46},
        {"min_p": 1e-300},
        {"temperature": 1e-300},
        {"temperature": 1e300},
        {"temperature": 2, "top_k": 1},
        {"top_k": 2**31 - 1},
        {"top_k": 10**20},
        {"top_k": 10**20, "guided_regex": "[ab]+"},
        {"max_tokens": 10**20},
        {"min_tokens": 10**20},
        {"stop_token_ids": [10**20]},
        {"seed": 2**63 - 1},
        {"seed": 10**20},
    ]
    for edge in edges:
        body = chat_body("Hi", max_tokens=2) | {"temperature": 1.0} | edge
        assert engine.client.post("/v1/chat/completions", json=body).status_code in {200, 400}, edge
    engine.wait_idle()
    assert engine.text("Hi", max_tokens=2)


def test_without_a_seed_texts_differ(engine: EngineProcess) -> None:
    """Sampling is random unless asked to be reproducible."""
    texts = {engine.text("Tell me a story.", temperature=1.2, max_tokens=24) for _ in range(3)}
    assert len(texts) > 1


def test_sampled_tokens_have_the_right_distribution(engine: EngineProcess, reference: dict[str, Any]) -> None:
    """Over 300 seeds, each likely first token comes as often as its probability says, and hardly an excluded one.

    Engines round differently, so a token at the edge of a filter may be in for one and out for another.
    """
    expected: dict[str, float] = reference["first_token"]
    draws = 300
    body = completion_body(SAMPLED_PROMPT, max_tokens=1) | SAMPLING

    def draw(seed: int) -> str:
        text: str = engine.post("/v1/completions", body | {"seed": seed})["choices"][0]["text"]
        return text

    drawn: dict[str, int] = {}
    with ThreadPoolExecutor(8) as pool:
        for text in pool.map(draw, range(draws)):
            drawn[text] = drawn.get(text, 0) + 1
    rounding = 0.0 if engine.name == "transformers" else 0.02
    assert sum(count for text, count in drawn.items() if text not in expected) <= rounding * draws
    for text, probability in expected.items():
        deviation = math.sqrt(draws * probability * (1 - probability))
        assert abs(drawn.get(text, 0) - draws * probability) <= 4 * deviation + 1 + rounding * draws, text


def test_text_parts_and_the_developer_role_are_taken(engine: EngineProcess) -> None:
    """Content in parts is the same as content in one string; ``developer`` is the newer name of ``system``."""
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi\nthere"}]
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]
    newer = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    tokens = [engine.post("/tokenize", {"model": MODEL_NAME, "messages": each})["tokens"] for each in (plain, newer)]
    assert tokens[0] == tokens[1]


def test_models_and_version_say_what_is_served(engine: EngineProcess) -> None:
    """The model under its served name and its context; the engine's version."""
    card = engine.client.get("/v1/models").json()["data"][0]
    assert (card["id"], card["max_model_len"]) == (MODEL_NAME, MAX_MODEL_LEN)
    assert engine.client.get("/version").json()["version"]


@pytest.mark.engines("openvino", "transformers")
def test_the_version_names_the_engine(engine: EngineProcess) -> None:
    """An engine of ours says which it is and what it is built on."""
    version = engine.client.get("/version").json()
    assert version["engine"] == engine.name
    assert len(version) > 2
