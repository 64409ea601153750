"""``python -m headrace_engines.openvino --model DIR --served-model-name NAME --uds PATH``."""

from __future__ import annotations

import argparse
import asyncio
from importlib.metadata import version

from headrace_engines import __version__
from headrace_engines.openvino.messages import Load
from headrace_engines.openvino.starting import start
from headrace_engines.serving.generator import OnDeath, ServedModel
from headrace_engines.serving.process import serve, shared_arguments

NAME = "openvino"


def main() -> None:
    """Serve the model until told to stop."""
    parser = shared_arguments(f"headrace_engines.{NAME}")
    parser.add_argument("--max-model-len", type=int, metavar="N", help="tokens of context (default: the model's own)")
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float16", "float32"], default="auto")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one per core)")
    parser.add_argument(
        "--kv-cache-bytes", type=int, default=0, metavar="N", help="memory for keys and values (default: 1 GiB or more)"
    )
    parser.add_argument(
        "--prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="share what was computed of prompts' common beginnings",
    )
    parser.add_argument("--max-running", type=int, default=128, metavar="N", help="sequences computed at once")
    parser.add_argument("--max-waiting", type=int, default=256, metavar="N", help="sequences accepted beyond those")
    arguments = parser.parse_args()

    def load_model(loop: asyncio.AbstractEventLoop, on_death: OnDeath) -> ServedModel:
        order = Load(
            folder=str(arguments.model),
            dtype=arguments.dtype,
            threads=arguments.threads,
            max_model_len=arguments.max_model_len,
            kv_cache_bytes=arguments.kv_cache_bytes,
            max_running=arguments.max_running,
            prefix_caching=arguments.prefix_caching,
        )
        return start(order, max_waiting=arguments.max_waiting, loop=loop, on_death=on_death)

    versions = {
        "engine": NAME,
        "version": __version__,
        "openvino": version("openvino"),
        "openvino-genai": version("openvino-genai"),
    }
    serve(arguments, load_model, versions)


if __name__ == "__main__":
    main()
