"""``python -m headrace_engines.transformers --model DIR --served-model-name NAME --uds PATH``."""

from __future__ import annotations

import asyncio
import os
from importlib.metadata import version

from headrace_engines import __version__
from headrace_engines.serving.generator import OnDeath, ServedModel
from headrace_engines.serving.process import serve, shared_arguments

NAME = "transformers"


def main() -> None:
    """Serve the model until told to stop."""
    parser = shared_arguments(f"headrace_engines.{NAME}")
    parser.add_argument("--max-model-len", type=int, metavar="N", help="tokens of context (default: the model's own)")
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float16", "float32"], default="auto")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument("--max-running", type=int, default=128, metavar="N", help="sequences computed at once")
    parser.add_argument("--max-waiting", type=int, default=256, metavar="N", help="sequences accepted beyond those")
    parser.add_argument("--kv-cache-bytes", type=int, default=0, metavar="B", help="key-value cache (0: own choice)")
    parser.add_argument("--allow-custom-code", action="store_true", help="run the folder's own Python code")
    arguments = parser.parse_args()
    # Weights come from a folder; nothing is ever asked of a hub, and a log file wants no progress bars.
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}

    def load_model(loop: asyncio.AbstractEventLoop, on_death: OnDeath) -> ServedModel:
        # Imported here, in the loading thread: torch takes seconds, and the listener is up before.
        from headrace_engines.transformers.loading import LoadOptions, load  # noqa: PLC0415

        options = LoadOptions(
            folder=arguments.model,
            dtype=arguments.dtype,
            device=arguments.device,
            threads=arguments.threads,
            max_model_len=arguments.max_model_len,
            max_running=arguments.max_running,
            max_waiting=arguments.max_waiting,
            kv_cache_bytes=arguments.kv_cache_bytes,
            own_code=arguments.allow_custom_code,
        )
        return load(options, loop, on_death)

    versions = {
        "engine": NAME,
        "version": __version__,
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
    serve(arguments, load_model, versions)


if __name__ == "__main__":
    main()
