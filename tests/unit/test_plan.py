"""Plans: where a model fits, on how many devices, which size takes it, how fast it would be."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_models import V2, WATSONX
from safetensors.numpy import save_file

from headrace.capacity import (
    Load,
    Parameters,
    Place,
    Tier,
    Work,
    context_tokens,
    degrees,
    next_tier,
    plan,
    predict,
    quota_admits,
    tier_for,
    unwritten,
)
from headrace.cli.app import run
from headrace.resources.errors import BadField, ConfigInvalid, DoesNotFit
from headrace.weights.config import parse_config
from headrace.weights.folder import ModelFolder

GB = 10**9
L4 = Place("l4", 8, 24 * GB, 0.9, 300e9, 121e12)
TIERS = (Tier("WX-S", 26 * GB), Tier("WX-M", 53 * GB), Tier("WX-L", 106 * GB))


def model(name: str, **more: Any) -> ModelFolder:
    """A published model by its configuration."""
    return unwritten(parse_config((V2 | WATSONX)[name].config | more))


# --- sharing among devices ------------------------------------------------------------------------------------------


def test_a_model_takes_the_fewest_devices_that_it_fits_on() -> None:
    """Llama 3.1 8B fits one L4 for a short load, two for a long one, and says what is left."""
    short = plan(model("Llama-3.1-8B"), Load(2048, 1, runtime="vllm"), L4)
    assert (short.devices, short.fits, short.advice) == (1, True, ())
    long = plan(model("Llama-3.1-8B"), Load(16_384, 8, runtime="vllm"), L4)
    assert (long.devices, long.fits) == (2, True)
    assert long.margin_bytes == long.available_bytes - long.need.total_bytes >= 0


def test_a_device_gets_whole_heads_only() -> None:
    """32 heads and 8 of keys and values go on 1, 2, 4, 8, 16 and 32 devices; Qwen2.5-7B's 28 and 4 not on 8."""
    assert degrees(parse_config(V2["Llama-3.1-8B"].config), 32, "vllm") == (1, 2, 4, 8, 16, 32)
    assert degrees(parse_config(V2["Qwen2.5-7B"].config), 8, "vllm") == (1, 2, 4)


@pytest.mark.parametrize("runtime", ["openvino", "transformers", ""])
def test_only_a_runtime_that_shares_is_given_several_devices(runtime: str) -> None:
    """The others have one, and a wish for two is refused."""
    assert degrees(parse_config(V2["Llama-3.1-8B"].config), 8, runtime) == (1,)
    with pytest.raises(BadField, match="2 devices"):
        plan(model("Llama-3.1-8B"), Load(2048, 1, runtime=runtime, tensor_parallel=2), L4)


def test_a_degree_that_does_not_divide_is_refused_with_those_that_do() -> None:
    """No engine divides a head."""
    with pytest.raises(BadField) as caught:
        plan(model("Qwen2.5-7B"), Load(2048, 1, runtime="vllm", tensor_parallel=8), L4)
    assert "1, 2, 4" in caught.value.fix


def test_what_does_not_fit_is_told_what_would_do() -> None:
    """Less context, fewer at once, more devices, or so much more memory."""
    one = msgspec.structs.replace(L4, devices=1)
    found = plan(model("Llama-3.1-8B"), Load(16_384, 8, runtime="vllm"), one)
    assert not found.fits
    assert found.prediction is None
    assert any(each.startswith("--context ") for each in found.advice)
    assert any("2 such devices" in each for each in found.advice)
    huge = plan(model("DeepSeek-V3"), Load(4096, 1, runtime="vllm"), one)
    assert not any("devices" in each for each in huge.advice)
    assert any("GB more" in each for each in huge.advice)
    shorter = plan(model("Llama-3.1-8B"), Load(found.context_that_fits, 8, runtime="vllm"), one)
    assert shorter.fits
    wide = plan(
        model("Llama-3.2-1B", dtype="float32"), Load(4096, 8), msgspec.structs.replace(one, device_bytes=7 * GB)
    )
    assert "--dtype bfloat16" in wide.advice


@settings(deadline=None)
@given(context=st.integers(1, 200_000), concurrency=st.integers(1, 64), gigabytes=st.integers(1, 200))
def test_the_largest_load_of_a_plan_fits_and_more_does_not(context: int, concurrency: int, gigabytes: int) -> None:
    """The context for so many sequences, and the sequences for such a context, are the largest."""
    place = Place("p", 1, gigabytes * GB)
    folder = model("Llama-3.1-8B", max_position_embeddings=2**30)  # so many that memory alone bounds a context
    found = plan(folder, Load(context, concurrency), place)
    assert found.fits == (found.need.total_bytes <= place.device_bytes)
    # activations grow with the sequences, and those of the load are taken for all
    need = found.need
    if found.context_that_fits:
        assert msgspec.structs.replace(need, context_tokens=found.context_that_fits).total_bytes <= place.device_bytes
    assert msgspec.structs.replace(need, context_tokens=found.context_that_fits + 1).total_bytes > place.device_bytes
    assert msgspec.structs.replace(need, concurrency=found.sequences_that_fit + 1).total_bytes > place.device_bytes


# --- weights that are not there yet ---------------------------------------------------------------------------------


def test_publishers_own_quantisation_is_planned_at_its_real_bytes() -> None:
    """gpt-oss-120b's experts in MXFP4 take 65 GB (its page gives 60.8 GiB), DeepSeek V3 in FP8 671 GB."""
    oss = model("gpt-oss-120b", quantization_config={"quant_method": "mxfp4"})
    assert oss.weight_bytes == pytest.approx(60.8 * 1024**3, rel=0.01)
    deepseek = model("DeepSeek-V3", quantization_config={"quant_method": "fp8"})
    assert deepseek.weight_bytes == pytest.approx(671e9, rel=0.01)
    assert model("Llama-3.1-8B").weight_bytes == 2 * 8_030_261_248


def test_a_family_that_is_not_known_needs_its_weights() -> None:
    """Their size is not guessed from the configuration."""
    with pytest.raises(ConfigInvalid, match="size cannot be told"):
        model("Llama-3.1-8B", model_type="novel")


# --- sizes by parameters, quotas ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("billions", "size"), [(1, "WX-S"), (26, "WX-S"), (26.5, "WX-M"), (53, "WX-M"), (53.5, "WX-L"), (106, "WX-L")]
)
def test_between_two_sizes_it_is_the_next_up(billions: float, size: str) -> None:
    """26, 53 and 106 billion parameters of two bytes."""
    assert tier_for("llama", int(billions * GB), TIERS).name == size
    assert tier_for("llama", int(billions * GB / 2), TIERS, number_bytes=4).name == size


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Llama-2-13b", "WX-S"),
        ("starcoder", "WX-S"),
        ("jais-13b", "WX-S"),
        ("flan-t5-large", "WX-S"),
        ("Qwen2.5-32B", "WX-M"),
        ("Llama-3.1-70B", "WX-L"),
    ],
)
def test_the_documents_examples_have_their_sizes(name: str, size: str) -> None:
    """As the document lists them, counted from their configurations."""
    folder = model(name)
    assert tier_for(folder.config.model_type, folder.parameters or 0, TIERS).name == size


def test_what_is_above_the_largest_size_is_refused() -> None:
    """Above 106 billion there is none."""
    with pytest.raises(DoesNotFit, match="WX-L takes 106"):
        tier_for("llama", 107 * GB, TIERS)


def test_without_tensor_parallelism_there_is_the_small_size_only() -> None:
    """Mixtral's 46.7 billion would be medium, and the table gives it no tensor parallelism."""
    assert tier_for("mistral", 12 * GB, TIERS).name == "WX-S"
    with pytest.raises(DoesNotFit) as caught:
        tier_for("mixtral", 46_702_792_704, TIERS)
    assert "no tensor parallelism" in caught.value.evidence


def test_the_next_size_up_is_suggested() -> None:
    """For a model that failed on its own; there is none after the largest."""
    assert [tier.name if (tier := next_tier(each.name, TIERS)) else None for each in TIERS] == ["WX-M", "WX-L", None]


SHARES = st.sampled_from([Fraction(1, 4), Fraction(1, 2), Fraction(1)])


@given(asked=st.lists(SHARES, max_size=20), quota=st.fractions(0, 3))
def test_a_quota_is_never_exceeded(asked: list[Fraction], quota: Fraction) -> None:
    """Whatever is asked for in whatever order, what was admitted stays within, and what was not would not."""
    running: list[Fraction] = []
    for share in asked:
        if quota_admits(running, share, quota):
            running.append(share)
        else:
            assert sum(running) + share > quota
        assert sum(running) <= quota


def test_a_quota_is_four_small_two_medium_or_one_large() -> None:
    """And mixtures of them, such as two small beside a medium."""
    quarter, half, whole = Fraction(1, 4), Fraction(1, 2), Fraction(1)
    assert quota_admits([quarter] * 3, quarter)
    assert not quota_admits([quarter] * 4, quarter)
    assert quota_admits([half], half)
    assert quota_admits([quarter, quarter], half)
    assert not quota_admits([half, quarter], half)
    assert quota_admits([], whole)
    assert not quota_admits([quarter], whole)
    assert quota_admits([whole], whole, quota=Fraction(2))


# --- speeds ---------------------------------------------------------------------------------------------------------

DENSE = Parameters(total=10 * GB, active=10 * GB)


def test_one_sequence_is_written_as_fast_as_the_weights_are_read() -> None:
    """20 GB at 100 GB/s are five tokens a second; without an efficiency where the rates were reached."""
    work = Work(DENSE, 20 * GB, 0, 0, 512, 4)
    reached = predict(work, Place("p", 1, 24 * GB, 1.0, 100e9, 100e12, measured=True))
    assert reached is not None
    assert reached.decode_tokens_per_s == pytest.approx(5)
    assert reached.decode_tokens_per_s_at_once == pytest.approx(20)
    assert reached.bound_by == "memory bandwidth"
    datasheet = predict(work, Place("p", 1, 24 * GB, 1.0, 100e9, 100e12))
    assert datasheet is not None
    assert datasheet.decode_tokens_per_s == pytest.approx(3.5)


def test_prompts_are_read_as_fast_as_the_arithmetic_goes() -> None:
    """Two operations for each parameter and token: 512 tokens take 10.24 TFLOP; attention adds to it."""
    place = Place("p", 1, 24 * GB, 1.0, 1e15, 10.24e12, measured=True)
    plain = predict(Work(DENSE, 20 * GB, 0, 0, 512, 1), place)
    attending = predict(Work(DENSE, 20 * GB, 100_000, 0, 512, 1), place)
    assert plain is not None
    assert attending is not None
    assert plain.time_to_first_token_s == pytest.approx(1.0)
    assert plain.prefill_tokens_per_s == pytest.approx(512)
    assert attending.time_to_first_token_s == pytest.approx(1.0 + 2 * 100_000 * 512**2 / 10.24e12)


def test_a_mixture_of_experts_is_written_as_fast_as_its_active_part_is_read() -> None:
    """One token reads a tenth of this one's bytes."""
    sparse = Parameters(total=10 * GB, active=GB, routed=9_600_000_000, experts=16, experts_per_token=1)
    place = Place("p", 1, 24 * GB, 1.0, 100e9, 1e15, measured=True)
    found = predict(Work(sparse, 20 * GB, 0, 0, 512, 1), place)
    assert found is not None
    assert found.decode_tokens_per_s == pytest.approx(50)


def test_what_a_runtime_takes_for_each_layer_is_added_to_every_pass() -> None:
    """A small model of many layers is as slow as its runtime's own work makes it, however fast the memory is."""
    place = Place("p", 1, 24 * GB, 1.0, 1e15, 1e18, measured=True)
    work = Work(DENSE, 20 * GB, 0, 0, 512, 4, layers=100)
    found, other = predict(work, place, runtime="transformers"), predict(work, place, runtime="openvino")
    assert found is not None
    assert other is not None
    assert found.decode_tokens_per_s == pytest.approx(1 / 0.03, rel=0.01)
    assert found.decode_tokens_per_s_at_once == pytest.approx(4 / 0.03, rel=0.01)
    assert found.time_to_first_token_s == pytest.approx(0.03, rel=0.01)
    assert other.decode_tokens_per_s > 1000


def test_nothing_is_predicted_without_rates() -> None:
    """Of an unknown device, or a number format that it does not have."""
    work = Work(DENSE, 20 * GB, 0, 0, 512, 1)
    assert predict(work, Place("p", 1, GB)) is None
    assert predict(work, Place("p", 1, GB, 1.0, 300e9, 0)) is None


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Llama 3.1 8B's configuration, and an empty data directory."""
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("HEADRACE_SHAPES", raising=False)
    target = tmp_path / "model"
    target.mkdir()
    config = V2["Llama-3.1-8B"].config | {"max_position_embeddings": 131_072}
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_a_plan_that_fits_ends_with_zero(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON document with every part, the margin and the speeds."""
    assert run(["plan", str(folder), "--machine", "g2-standard-4", "--context", "1024", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fits"] is True
    assert answer["parameters"] == 8_030_261_248
    assert answer["total_bytes"] == answer["weights_bytes"] + answer["cache_bytes"] + answer["overhead_bytes"]
    assert answer["margin_bytes"] == answer["available_bytes"] - answer["total_bytes"] >= 0
    assert answer["cache_bytes_per_token"] == 131_072
    assert answer["prediction"]["decode_tokens_per_s"] == pytest.approx(0.7 * 300e9 / 16.06e9, rel=0.15)


def test_a_plan_names_the_prompt_of_its_first_token(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its length, which is not that of the prompt that a deployment is warmed up with."""
    for context, length in ((1024, 512), (100, 100)):
        assert run(["plan", str(folder), "--machine", "g2-standard-4", "--context", str(context)]) == 0
        assert f"of a prompt of {length} tokens, nothing else under way" in capsys.readouterr().out


def test_a_plan_that_does_not_fit_ends_as_a_deployment_would(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table is there all the same; the error has the code, the numbers and what would fit."""
    assert run(["plan", str(folder), "--machine", "g2-standard-4", "--context", "100000"]) == 1
    shown = capsys.readouterr()
    assert "missing" in shown.out
    assert "error DOES_NOT_FIT" in shown.err
    assert "131,072 bytes a token × 100,000 tokens × 8 at once" in shown.err
    assert "--context " in shown.err


@pytest.mark.parametrize(
    ("config", "arguments", "code"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, [], "WEIGHTS_QUANTISED"),
        ({"quantization_config": {"quant_method": "gptq"}}, ["--machine", "WX-S"], "WEIGHTS_QUANTISED"),
        ({}, ["--context", "200000", "--concurrency", "1"], "BAD_FIELD"),
        ({}, ["--context", "200000", "--machine", "WX-S"], "BAD_FIELD"),
        ({}, ["--dtype", "float32", "--runtime", "openvino"], "RUNTIME_UNSUITABLE"),
        ({}, ["--tensor-parallel", "2", "--runtime", "transformers"], "RUNTIME_UNSUITABLE"),
    ],
)
def test_a_plan_is_refused_for_what_refuses_the_deployment(
    config: dict[str, Any], arguments: list[str], code: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However much memory there is: exit 1 and the deployment's own code; the document has the plan and the code."""
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
    machine = [] if "--machine" in arguments else ["--machine", "a2-ultragpu-2g:2"]
    if "--tensor-parallel" not in arguments:  # which that runtime cannot have, so that there is no table
        assert run(["plan", str(folder), *machine, *arguments, "--json"]) == 1
        shown = capsys.readouterr()
        answer = json.loads(shown.out)
        assert (answer["fits"], answer["refusal"]) == (True, code)
        assert json.loads(shown.err)["error"]["code"] == code
    assert run(["plan", str(folder), *machine, *arguments]) != 0
    shown = capsys.readouterr()
    assert f"error {code}" in shown.err
    assert "It fits" not in shown.out


def test_an_architecture_that_nothing_serves_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the table, and the code of the deployment."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "foo"}))
    save_file({"w": np.zeros((8, 8), np.float16)}, folder / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr("headrace.cli.planning.look", lambda _dir: _machine_of(64 * GB))
    assert run(["plan", str(folder)]) == 1
    shown = capsys.readouterr()
    assert "weights" in shown.out
    assert "error ARCHITECTURE_UNSUPPORTED" in shown.err
    assert "no shape of the catalogue serves it either" in shown.out


def test_a_model_that_embeds_is_planned_without_what_it_does_not_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights, what it takes at work, and when it would be ready: it writes nothing, and keeps no cache."""
    config = {
        "model_type": "bert",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "max_position_embeddings": 512,
        "intermediate_size": 128,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"w": np.zeros((64, 64), np.float32)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert run(["plan", str(folder), "--machine", "n1-standard-4:NVIDIA_TESLA_T4:1"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("weights", "at work", "total", "ready after"))
    assert not any(word in shown for word in ("cache", "first token", "writing", "fits at most"))
    assert run(["plan", str(folder), "--machine", "n1-standard-4:NVIDIA_TESLA_T4:1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["task"], list(answer["prediction"])) == ("embed", ["load_s"])


def test_what_is_refused_anywhere_is_planned_where_it_has_room(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue is not blamed for a context that the model does not have."""
    monkeypatch.setattr("headrace.cli.planning.look", lambda _dir: _machine_of(512 * GB))
    assert run(["plan", str(folder), "--context", "200000", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["refusal"], answer["reason"]) == ("BAD_FIELD", "it is here, and has room")


def test_the_most_that_fits_is_never_longer_than_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A context beyond the model's own is not said to fit in any number."""
    assert run(["plan", str(folder), "--machine", "a3-highgpu-8g", "--context", "200000"]) == 1
    most = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fits at most"))
    assert "131,072 tokens × 8 at once; the model was made for 131,072 tokens" in most
    assert "200,000" not in most


def test_without_a_machine_the_cheapest_that_fits_is_taken_with_its_reason(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine first; where it has no room, one of the catalogue, and by how much this one missed."""
    config = V2["Llama-3.1-70B"].config
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("headrace.cli.planning.look", lambda _dir: _small_machine())
    assert run(["plan", str(folder), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["shape"] == "g2-standard-96 (8 × NVIDIA_L4)"
    assert "cheapest" in answer["reason"]
    assert "lacks" in answer["reason"]
    assert run(["plan", str(folder), "--json", "--machine", "this-machine"]) == 1


def test_an_operators_cheap_machine_is_chosen_before_dear_ones(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a price it takes part in the order, with processors alone, too."""
    own = folder.parent / "data" / "shapes.toml"
    own.parent.mkdir()
    own.write_text('[[shape]]\nname = "rack-a"\ncores = 64\nmemory_gb = 512\nusd_per_h = 0.1\n')
    monkeypatch.setattr("headrace.cli.planning.look", lambda _dir: _small_machine())
    assert run(["plan", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == "rack-a"


def test_a_degree_that_this_machine_does_not_have_is_planned_elsewhere(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cheapest shape with as many devices."""
    monkeypatch.setattr("headrace.cli.planning.look", lambda _dir: _small_machine())
    assert run(["plan", str(folder), "--json", "--tensor-parallel", "2"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tensor_parallel"] == 2
    assert "fewer devices" in answer["reason"]


def test_a_size_in_parameters_is_held_against_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that takes it passes and names the next one up; a smaller one is refused with it."""
    assert run(["plan", str(folder), "--machine", "WX-S"]) == 0
    assert "WX-M" in capsys.readouterr().out
    (folder / "config.json").write_text(json.dumps(V2["Llama-3.1-70B"].config))
    assert run(["plan", str(folder), "--machine", "wx-s"]) == 1
    assert "Ask for WX-L" in capsys.readouterr().err
    (folder / "config.json").write_text(json.dumps(V2["Mixtral-8x7B-v0.1"].config))
    assert run(["plan", str(folder), "--machine", "WX-M"]) == 1
    assert "no tensor parallelism" in capsys.readouterr().err
    (folder / "config.json").write_text(json.dumps(V2["Mistral-7B-v0.1"].config))
    assert run(["plan", str(folder), "--machine", "WX-M"]) == 1
    assert "Ask for WX-S" in capsys.readouterr().err


def test_shapes_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This machine, the catalogue's, and an operator's own."""
    own = folder.parent / "data" / "shapes.toml"
    own.parent.mkdir()
    own.write_text('[[shape]]\nname = "rack-a"\ncores = 64\nmemory_gb = 512\n')
    assert run(["plan", "--shapes"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("this-machine", "a4-highgpu-8g", "WX-L", "TS-XL", "rack-a"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "nothing to plan"),
        (["{folder}", "--machine", "g9"], 2, "no machine type"),
        (["{folder}", "--machine", "g2-standart-4"], 2, "The nearest are g2-standard-4, "),
        (["{folder}", "--machine", "TS-S"], 2, "time-series"),
        (["{folder}", "--runtime", "nope"], 2, "nope"),
        (["{folder}/none"], 3, "none"),
        (["{folder}", "--tensor-parallel", "32"], 2, "The most are 16"),
        (["{folder}", "--context", f"{10**400}"], 2, "--context"),
        (["{folder}", "--concurrency", f"{10**400}"], 2, "--concurrency"),
    ],
)
def test_wrong_wishes_are_named(
    arguments: list[str], code: int, says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with the exit code of its kind."""
    assert run(["plan", *(each.format(folder=folder) for each in arguments)]) == code
    assert says in capsys.readouterr().err


def _small_machine() -> Any:
    return _machine_of(8 * GB)


def _machine_of(memory_bytes: int) -> Any:
    from headrace.hardware import MachineShape

    return MachineShape(
        memory_total_bytes=memory_bytes,
        memory_available_bytes=memory_bytes,
        cores=2.0,
        cpu_model="A CPU",
        cpu_flags=(),
        disk_total_bytes=1,
        disk_free_bytes=1,
        open_files_soft=1,
        open_files_hard=1,
        gpus=(),
    )


def test_layers_without_end_are_refused_before_they_are_walked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an architecture whose tensors are held against nothing, too: a plan goes through the layers one by one."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "novel", "num_hidden_layers": 2**39}))
    assert run(["plan", str(folder)]) == 1
    assert "CONFIG_INVALID" in capsys.readouterr().err


def test_a_model_that_names_no_context_has_that_of_its_class() -> None:
    """falcon-7b's config.json names none and its engine has 2,048, so no more is planned, or can be asked for; a T5's
    positions are relative, and nothing bounds them."""
    falcon = parse_config(WATSONX["falcon-7b"].config)
    assert context_tokens(falcon, None) == 2048
    with pytest.raises(BadField):
        context_tokens(falcon, 4096)
    t5 = parse_config({"model_type": "t5"})
    assert (context_tokens(t5, None), context_tokens(t5, 10_000)) == (4096, 10_000)


def test_a_context_that_nobody_can_mean_is_refused() -> None:
    """Also of a model that does not say how long it may be: a number of four hundred digits is not computed with."""
    with pytest.raises(BadField, match="not one that this model has"):
        context_tokens(parse_config({"model_type": "novel"}), 10**400)
