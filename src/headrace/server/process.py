"""What every process of ours does first: end with its parent, log to its file, tell the supervisor where it stands."""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from headrace.request_log.settings import MAX_BYTES, LogFormat
from headrace.resources.layout import Layout

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOG_FILE_BYTES = 10 * 2**20
LOG_FILES = 3

GARBAGE_THRESHOLD = 5_000
"""Containers made and not freed before the youngest are searched for cycles, for which everything waits: 5,000 of them
take 1 to 2 ms, 20,000 took 5 to 15. A request makes some fifty, and neither it nor a connection leaves a cycle;
Python's own 700 has them searched at every tenth request, together with those of all requests under way."""

Standing = Literal["ready", "draining"]


def settle() -> None:
    """Say that what is there now stays: no search for cycles has to pass it, and searches come seldom.

    A full one passes all classes and functions of all libraries, which holds up whatever is under way for some 80 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 10, 50)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line that the supervisor speaks to its children."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True, help="the supervisor's process id")
    parser.add_argument("--notify-fd", type=int, required=True, help="pipe on which to say ready and draining")
    return parser


class Options(argparse.Namespace):
    """What the supervisor told this process, typed.

    What can be given more than once has no value here, but its parser's: argparse appends to what it finds.
    """

    data_dir: Path
    parent: int
    notify_fd: int
    listen_fd: int = -1
    drain_timeout_s: float = 0.0
    stall_timeout_s: float = 0.0
    tls_listen_fd: int = -1
    tls_certificate: str = ""
    tls_key: str = ""
    gateway_url: str = ""
    https_host: str = ""
    grpc_address: str = ""
    grpc_socket: str = ""
    otlp_traces_endpoint: str = ""
    request_log_format: str = LogFormat.JSONL
    request_log_max_bytes: int = MAX_BYTES
    cors_origin: Sequence[str]
    external_network: Sequence[str]
    model_mirror: Sequence[str]
    external_ca_file: str = ""
    model_cache_bytes: int | None = None
    number: int = 0
    gateways: int = 1


def parse(parser: argparse.ArgumentParser) -> Options:
    """The command line, read."""
    return parser.parse_args(namespace=Options())


def begin(name: str, options: Options) -> Layout:
    """Tie this process to its parent, start its log file, and say where things lie.

    A parent that is killed takes its children along (the kernel does it), so that nothing of ours is orphaned.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != options.parent:  # it died before the line above took effect
        sys.exit(1)
    os.set_inheritable(options.notify_fd, False)  # its end must mean ours, whatever we started
    layout = Layout(options.data_dir)
    layout.logs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.handlers.RotatingFileHandler(
        layout.logs_dir / f"{name}.log", maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Clients say every address that they ask, and one of an object store may hold the right to read.
    for chatty in ("httpx", "httpx2", "httpcore", "urllib3", "azure", "alembic", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return layout


def internal_token(layout: Layout) -> str:
    """The secret that our own processes show each other, as the supervisor made it."""
    return layout.internal_token.read_text(encoding="ascii").strip()


def notify(options: Options, standing: Standing) -> None:
    """Tell the supervisor where this process stands; a supervisor that is gone is not told."""
    try:
        os.write(options.notify_fd, f"{standing}\n".encode())
    except BrokenPipeError:
        logging.getLogger(__name__).warning("the supervisor is gone")
