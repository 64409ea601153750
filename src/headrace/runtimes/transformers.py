"""The runtime of breadth: Hugging Face transformers on PyTorch, behind Headrace's own serving shell."""

from __future__ import annotations

import os
import tempfile

from headrace.resources.errors import Failure
from headrace.runtimes import ending
from headrace.runtimes.engines import read_requirements
from headrace.runtimes.runtime import EngineCommand, EngineEnd, Environment, Launch

TOKEN_VARIABLE = "HEADRACE_ENGINE_TOKEN"  # noqa: S105 - the variable's name, not a token

_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_PROC_BIND")
"""What an engine needs to know of its surroundings; the node's secrets are not among it."""


class TransformersRuntime:
    """Text generation with every causal language model that transformers knows."""

    name = "transformers"
    disk_bytes = 2_500_000_000  # 1.2 GB installed, the rest pip's downloads and unpacking (measured)

    @property
    def requirements(self) -> str:
        """What the engine's own folder pins."""
        return read_requirements("transformers")

    @property
    def model_types(self) -> frozenset[str]:
        """Those of transformers 5.23 (`CAUSAL_LM_TYPES`)."""
        return CAUSAL_LM_TYPES

    def command(self, launch: Launch, environment: Environment) -> EngineCommand:
        """How to start an engine."""
        arguments = {
            "--model": str(launch.model_dir),
            "--served-model-name": launch.served_name,
            "--uds": str(launch.socket),
            "--max-model-len": str(launch.max_model_len),
            "--dtype": launch.dtype,
            "--threads": str(launch.threads),
        }
        flat = [part for pair in arguments.items() for part in pair]
        return EngineCommand(
            # -P: the working directory is no place to import from
            argv=(str(environment.python), "-P", "-m", "headrace_engines.transformers", *flat),
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            | {
                "PATH": f"{environment.path / 'bin'}:{os.defpath}",
                "TMPDIR": tempfile.gettempdir(),
                "PYTHONPATH": str(environment.engines_path),
                "PYTHONUNBUFFERED": "1",
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                "OMP_NUM_THREADS": str(launch.threads),
                TOKEN_VARIABLE: launch.nonce,
            },
        )

    def classify(self, end: EngineEnd) -> Failure:
        """What an engine's end means."""
        return ending.classify(end)


CAUSAL_LM_TYPES = frozenset(
    [
        "afmoe",
        "apertus",
        "arcee",
        "aria_text",
        "axk1",
        "axk2",
        "bailing_hybrid",
        "bamba",
        "bart",
        "beam",
        "bert",
        "bert-generation",
        "big_bird",
        "bigbird_pegasus",
        "biogpt",
        "bitnet",
        "blenderbot",
        "blenderbot-small",
        "bloom",
        "blt",
        "camembert",
        "codegen",
        "cohere",
        "cohere2",
        "cohere2_moe",
        "cohere_compass_text",
        "cpmant",
        "ctrl",
        "cwm",
        "data2vec-text",
        "dbrx",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "deepseek_v4",
        "diffllama",
        "doge",
        "dots1",
        "dots3_note",
        "dots3_note_text",
        "electra",
        "emu3",
        "ernie",
        "ernie4_5",
        "ernie4_5_moe",
        "exaone4",
        "exaone_moe",
        "falcon",
        "falcon_h1",
        "falcon_mamba",
        "flex_olmo",
        "flint",
        "fuyu",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "gemma3n",
        "gemma3n_text",
        "gemma4",
        "gemma4_assistant",
        "gemma4_text",
        "gemma4_unified",
        "gemma4_unified_assistant",
        "gemma4_unified_text",
        "git",
        "glm",
        "glm4",
        "glm4_moe",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "got_ocr2",
        "gpt-sw3",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gpt_neox_japanese",
        "gpt_oss",
        "gptj",
        "granite",
        "granite_swa",
        "granitemoe",
        "granitemoe_swa",
        "granitemoehybrid",
        "granitemoeshared",
        "helium",
        "hrm_text",
        "hunyuan_v1_dense",
        "hunyuan_v1_moe",
        "hy_v3",
        "hy_v4",
        "hyperclovax",
        "inkling2_text",
        "inkling_text",
        "internlm3",
        "iquestcoder",
        "jais2",
        "jamba",
        "jetmoe",
        "kimi_linear",
        "kolibri1",
        "laguna",
        "lfm2",
        "lfm2_moe",
        "lfm3",
        "llama",
        "llama4",
        "llama4_text",
        "longcat_flash",
        "mamba",
        "mamba2",
        "marian",
        "mbart",
        "megatron-bert",
        "mellum",
        "mimo_v2_flash",
        "minicpm3",
        "minimax",
        "minimax_m2",
        "minimax_m3_vl_text",
        "ministral",
        "ministral3",
        "mistral",
        "mixtral",
        "mllama",
        "modernbert-decoder",
        "moshi",
        "moss_transcribe_diarize",
        "mpt",
        "musicgen",
        "musicgen_melody",
        "mvp",
        "nanochat",
        "nemotron",
        "nemotron_h",
        "olmo",
        "olmo2",
        "olmo3",
        "olmo_hybrid",
        "olmoe",
        "openai-gpt",
        "opt",
        "pegasus",
        "persimmon",
        "phi",
        "phi3",
        "phi4_multimodal",
        "phimoe",
        "plbart",
        "prophetnet",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_moe",
        "qwen3_next",
        "qwen4_exp",
        "qwen4_exp_text",
        "recurrent_gemma",
        "reformer",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "rwkv",
        "seed_oss",
        "smollm3",
        "solar_open",
        "stablelm",
        "starcoder2",
        "trocr",
        "vaultgemma",
        "whisper",
        "xglm",
        "xlm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xlnet",
        "xlstm",
        "xmod",
        "youtu",
        "zamba",
        "zamba2",
        "zaya",
    ]
)
"""Keys of ``MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`` in transformers 5.23.0 (``models/auto/modeling_auto.py``)."""
