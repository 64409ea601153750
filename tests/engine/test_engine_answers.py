"""What the engine answers: the same as transformers' own generate, whole and in pieces, alone and in company."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from engine_process import MODEL_NAME, EngineProcess, chat_body
from reference_cases import GREEDY_TOKENS, PROMPTS, SAMPLED_PROMPT, SAMPLING


def check_greedy(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Text, end and counts are those of the reference."""
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": expected["text"]}
    assert answer["choices"][0]["finish_reason"] == ("stop" if expected["ended"] else "length")
    prompt, completion = len(expected["prompt_ids"]), len(expected["new_ids"])
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_greedy_is_what_generate_says(engine: EngineProcess, reference: dict[str, Any], index: int) -> None:
    """Text, finish reason and token counts are those of ``model.generate(do_sample=False)``."""
    check_greedy(engine.chat(PROMPTS[index], max_tokens=GREEDY_TOKENS), reference["greedy"][index])


def test_greedy_is_the_same_in_company(engine: EngineProcess, reference: dict[str, Any]) -> None:
    """Four at a time, sampled ones among them, each greedy answer is what it is alone."""
    with ThreadPoolExecutor(5) as pool:
        noise = pool.submit(engine.chat, "Tell me a story.", max_tokens=80, temperature=1.2, ignore_eos=True)
        answers = list(pool.map(lambda prompt: engine.chat(prompt, max_tokens=GREEDY_TOKENS), PROMPTS))
        noise.result()
    for answer, expected in zip(answers, reference["greedy"], strict=True):
        check_greedy(answer, expected)


def test_a_prompt_of_token_ids_is_taken_as_it_is(engine: EngineProcess, reference: dict[str, Any]) -> None:
    """Completions of token ids, of text, and of a list that holds either, agree."""
    expected = reference["greedy"][0]
    body = {"model": MODEL_NAME, "temperature": 0, "max_tokens": GREEDY_TOKENS}
    for prompt in (expected["prompt_ids"], [expected["prompt_ids"]]):
        answer = engine.client.post("/v1/completions", json=body | {"prompt": prompt}).json()
        assert answer["choices"][0]["text"] == expected["text"]
        assert answer["object"] == "text_completion"


def test_completions_stop_after_sixteen_tokens_by_default(engine: EngineProcess) -> None:
    """OpenAI's default for completions is kept."""
    body = {"model": MODEL_NAME, "prompt": "Once upon a time", "temperature": 0, "ignore_eos": True}
    assert engine.client.post("/v1/completions", json=body).json()["usage"]["completion_tokens"] == 16


def test_a_chat_runs_to_its_end_by_default(engine: EngineProcess) -> None:
    """Without a token budget a chat ends when the model ends it."""
    assert engine.chat("What is 2 + 2?")["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_pieces_of_a_stream_make_the_whole(engine: EngineProcess, prompt: str) -> None:
    """Streamed text put together, finish reason and usage are those of the answer at once."""
    parameters = {"max_tokens": 40, "temperature": 1.1, "seed": 5}
    whole = engine.chat(prompt, **parameters)
    body = chat_body(prompt, **parameters, stream_options={"include_usage": True})
    *chunks, last = engine.stream("/v1/chat/completions", body)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    pieces = [delta.get("content", "") for delta in deltas]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert {chunk["object"] for chunk in [*chunks, last]} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in [*chunks, last]}) == 1


def test_a_completion_streams_too(engine: EngineProcess) -> None:
    """The older route streams text, without a usage chunk unless asked."""
    body = {"model": MODEL_NAME, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 12}
    whole = engine.client.post("/v1/completions", json=body).json()
    chunks = list(engine.stream("/v1/completions", body))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]
    assert all("usage" not in chunk for chunk in chunks)


def test_a_seed_gives_the_same_text_whatever_else_runs(engine: EngineProcess) -> None:
    """Same seed, same text, alone and in company; another seed, another text."""
    parameters = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 24}
    alone = engine.chat("Tell me a story.", seed=7, **parameters)["choices"][0]["message"]["content"]
    with ThreadPoolExecutor(4) as pool:
        texts = list(
            pool.map(
                lambda seed: engine.chat("Tell me a story.", seed=seed, **parameters)["choices"][0]["message"][
                    "content"
                ],
                [7, 8, 9, 7],
            )
        )
    assert texts[0] == texts[3] == alone
    assert len(set(texts)) == 3


def test_without_a_seed_texts_differ(engine: EngineProcess) -> None:
    """Sampling is random unless asked to be reproducible."""
    texts = {
        engine.chat("Tell me a story.", temperature=1.2, max_tokens=24)["choices"][0]["message"]["content"]
        for _ in range(3)
    }
    assert len(texts) > 1


def test_sampled_tokens_have_the_right_distribution(engine: EngineProcess, reference: dict[str, Any]) -> None:
    """Over 300 seeds, each likely first token comes as often as its probability says, and no excluded one comes."""
    expected: dict[str, float] = reference["first_token"]
    draws = 300
    body = {"model": MODEL_NAME, "prompt": SAMPLED_PROMPT, "max_tokens": 1} | SAMPLING
    counts: dict[str, int] = {}
    for seed in range(draws):
        text = engine.client.post("/v1/completions", json=body | {"seed": seed}).json()["choices"][0]["text"]
        counts[text] = counts.get(text, 0) + 1
    assert counts.keys() <= expected.keys()
    for text, probability in expected.items():
        deviation = math.sqrt(draws * probability * (1 - probability))
        assert abs(counts.get(text, 0) - draws * probability) <= 4 * deviation + 1, text


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"temperature": 1e-9}])
def test_the_narrowest_sampling_is_greedy(engine: EngineProcess, reference: dict[str, Any], sampling: Any) -> None:
    """Each way to leave only the likeliest token gives the greedy answer."""
    answer = engine.chat(PROMPTS[0], **{"temperature": 1.0, "max_tokens": GREEDY_TOKENS} | sampling)
    assert answer["choices"][0]["message"]["content"] == reference["greedy"][0]["text"]


def test_penalties_keep_tokens_from_coming_back(engine: EngineProcess) -> None:
    """Greedy counting repeats itself; with the highest frequency penalty it does so less."""
    body = {"model": MODEL_NAME, "prompt": "a a a a a a a a", "temperature": 0, "max_tokens": 16, "ignore_eos": True}

    def words(**penalty: float) -> list[str]:
        text: str = engine.client.post("/v1/completions", json=body | penalty).json()["choices"][0]["text"]
        return text.split()

    plain = words()
    assert len(set(words(frequency_penalty=2.0))) > len(set(plain))
    assert len(set(words(presence_penalty=2.0))) > len(set(plain))
    assert len(set(words(repetition_penalty=2.0))) > len(set(plain))


def test_a_stop_string_across_tokens_ends_the_text_before_it(engine: EngineProcess) -> None:
    """The text ends before the stop string, streamed or not, and only tokens up to its end are counted."""
    parameters = {"max_tokens": 60}
    full = engine.chat("Count from one to ten.", **parameters)
    text = full["choices"][0]["message"]["content"]
    stop = text[11:17]  # cuts through tokens
    expected = text[: text.index(stop)]
    for given in (stop, ["never said", stop]):
        stopped = engine.chat("Count from one to ten.", stop=given, **parameters)
        assert stopped["choices"][0]["message"]["content"] == expected
        assert stopped["choices"][0]["finish_reason"] == "stop"
        assert stopped["usage"]["completion_tokens"] < full["usage"]["completion_tokens"]
    chunks = list(engine.stream("/v1/chat/completions", chat_body("Count from one to ten.", stop=stop, **parameters)))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == expected
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_ignore_eos_gives_exactly_the_tokens_asked_for(engine: EngineProcess) -> None:
    """Benchmarks need answers of a known length."""
    answer = engine.chat("What is 2 + 2?", max_tokens=70, ignore_eos=True)
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (70, "length")


def test_min_tokens_keeps_the_end_away(engine: EngineProcess) -> None:
    """An answer that would end sooner goes on to the number asked for."""
    short = engine.chat("What is 2 + 2?", max_tokens=60)["usage"]["completion_tokens"]
    assert short < 40
    assert engine.chat("What is 2 + 2?", max_tokens=60, min_tokens=40)["usage"]["completion_tokens"] >= 40


def test_tokenize_counts_as_usage_does(engine: EngineProcess, reference: dict[str, Any]) -> None:
    """Messages are tokenised exactly as a chat request would be, text as a completion would be."""
    messages = chat_body(PROMPTS[0])["messages"]
    answer = engine.client.post("/tokenize", json={"messages": messages}).json()
    expected = reference["greedy"][0]["prompt_ids"]
    assert answer == {"count": len(expected), "max_model_len": 8192, "tokens": expected}
    assert engine.client.post("/tokenize", json={"prompt": "Hello"}).json()["count"] == 1


def test_text_parts_and_the_developer_role_are_taken(engine: EngineProcess) -> None:
    """Content in parts is the same as content in one string; ``developer`` is the newer name of ``system``."""
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi\nthere"}]
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]
    newer = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    tokens = [engine.client.post("/tokenize", json={"messages": each}).json()["tokens"] for each in (plain, newer)]
    assert tokens[0] == tokens[1]


def test_models_and_version_say_what_is_served(engine: EngineProcess) -> None:
    """The model under its served name; the engine and what it is built on."""
    card = engine.client.get("/v1/models").json()["data"][0]
    assert (card["id"], card["max_model_len"]) == (MODEL_NAME, 8192)
    version = engine.client.get("/version").json()
    assert version["engine"] == "transformers"
    assert version.keys() == {"engine", "version", "torch", "transformers"}
