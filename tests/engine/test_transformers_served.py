"""The transformers engine behind its HTTP shell, where it differs from the demo model's plain case."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from engine_launch import MODEL_NAME, environment_of
from engine_process import EngineProcess, completion_body, start_engine
from reference_cases import PROMPTS

PROGRAM = Path(__file__).parent / "tiny_models.py"


@pytest.fixture(scope="module")
def exact_engine(model_folder: Path) -> Iterator[EngineProcess]:
    """The demo model in float32: in bfloat16 a pass of several rows rounds otherwise than one of one, and ties flip."""
    with start_engine(model_folder, "--dtype", "float32") as engine:
        engine.wait_ready()
        yield engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models."""
    out = tmp_path_factory.mktemp("tiny")
    python = environment_of("transformers").python
    subprocess.run([str(python), str(PROGRAM), str(out), "t5", "gemma3", "bert"], capture_output=True, check=True)
    return out


def test_greedy_is_the_same_in_company(exact_engine: EngineProcess) -> None:
    """Five at a time, sampled ones among them, each greedy answer is what it is alone."""
    alone = [exact_engine.text(prompt, max_tokens=24) for prompt in PROMPTS]
    with ThreadPoolExecutor(5) as pool:
        noise = pool.submit(exact_engine.chat, "Tell me a story.", max_tokens=80, temperature=1.2, ignore_eos=True)
        together = list(pool.map(lambda prompt: exact_engine.text(prompt, max_tokens=24), PROMPTS))
        noise.result()
    assert together == alone


def test_a_seed_gives_the_same_text_whatever_else_runs(exact_engine: EngineProcess) -> None:
    """Same seed, same text, alone and in company; another seed, another text."""
    parameters = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 24}
    alone = exact_engine.text("Tell me a story.", seed=7, **parameters)
    with ThreadPoolExecutor(4) as pool:
        texts = list(
            pool.map(lambda seed: exact_engine.text("Tell me a story.", seed=seed, **parameters), [7, 8, 9, 7])
        )
    assert texts[0] == texts[3] == alone
    assert len(set(texts)) == 3


@pytest.mark.parametrize("name", ["t5", "gemma3"])
def test_an_architecture_is_served_whole(tiny: Path, name: str) -> None:
    """An encoder-decoder and the text part of a vision-language model count what went in and what came out."""
    with start_engine(tiny / name, "--max-model-len", "128") as engine:
        engine.wait_ready()
        texts = set()
        for prompt in ([7], [255], list(range(200, 212))):
            answer = engine.post("/v1/completions", completion_body(prompt, max_tokens=24, ignore_eos=True))
            assert answer["usage"]["prompt_tokens"] == len(prompt)
            assert answer["usage"]["completion_tokens"] == 24
            texts.add(answer["choices"][0]["text"])
        assert len(texts) > 1


def test_an_encoder_is_served_for_embeddings(tiny: Path) -> None:
    """A folder of BERT's answers ``/v1/embeddings`` with vectors of length one."""
    with start_engine(tiny / "bert", "--max-model-len", "128") as engine:
        engine.wait_ready()
        answer = engine.post("/v1/embeddings", {"model": MODEL_NAME, "input": ["Hello", "What is it?"]})
        assert [sum(value**2 for value in one["embedding"]) for one in answer["data"]] == pytest.approx([1, 1])


def test_a_cache_smaller_than_one_context_is_refused(model_folder: Path) -> None:
    """The engine says what a token takes and what a whole context would."""
    with start_engine(model_folder, "--kv-cache-bytes", "1000000") as engine:
        fatal = engine.fatal()
    assert fatal["code"] == "ENGINE_OUT_OF_MEMORY"
    assert "23,040 bytes" in fatal["evidence"]  # 2 × 30 layers × 3 heads × 64 × 2 bytes


def test_a_folders_own_code_is_never_run(tmp_path: Path) -> None:
    """A model that is only code of its own is refused, and the code is named."""
    config = {
        "model_type": "strange",
        "auto_map": {"AutoConfig": "strange.Config", "AutoModelForCausalLM": "strange.LM"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "strange.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    with start_engine(tmp_path) as engine:
        fatal = engine.fatal()
    assert fatal["code"] == "ENGINE_UNSUPPORTED_ARCHITECTURE"
    assert "strange.LM" in fatal["message"]
    assert not (tmp_path / "was_run").exists()
