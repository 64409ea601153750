"""The node process: the agent of this machine. Listens on nothing; calls control and runs shims."""

from __future__ import annotations

import asyncio
import signal

import uvloop

from headrace.node import Agent
from headrace.resources.layout import Layout
from headrace.server import process


async def _run(layout: Layout, options: process.Options) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    agent = Agent(
        layout,
        f"unix:{layout.control_socket}",
        process.internal_token(layout),
        model_cache_bytes=options.model_cache_bytes,
    )
    running = asyncio.create_task(agent.run())
    process.notify(options, "ready")
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()  # it never returns by itself: this raises what ended it, and the supervisor starts another
    await agent.stop(keep_replicas=False)
    await running


def main() -> None:
    """Entry of the process."""
    parser = process.arguments(__doc__)
    parser.add_argument("--model-cache-bytes", type=int, help="what staged models may take; any amount if not given")
    options = process.parse(parser)
    layout = process.begin("node", options)
    uvloop.run(_run(layout, options))


if __name__ == "__main__":
    main()
