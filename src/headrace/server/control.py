"""The control process: the API and the reconciler, on a unix socket. May be killed at any moment."""

from __future__ import annotations

import asyncio
import signal

import uvloop

from headrace.api import create_app
from headrace.catalogue import read_mirror
from headrace.control import EveryGateway, FolderChecker, HttpGatewayClient, InferenceTables, Reconciler, UsageIngester
from headrace.control.garden import make_ready
from headrace.control.history import Forgetter
from headrace.resources.egress import Egress
from headrace.resources.layout import Layout
from headrace.resources.operations import KEPT_DAYS
from headrace.server import database, process
from headrace.server.asgi import server
from headrace.server.listening import unix_socket
from headrace.storage import Credentials
from headrace.storage.uploads import sweep
from headrace.store import Store, migrate

API_DRAIN_S = 5
COUNT_ROWS_EVERY_S = 3600.0


async def _run(layout: Layout, options: process.Options) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    token = process.internal_token(layout)
    url = database.url_of(layout)
    migrate(url)
    sweep(layout.uploads_dir)
    store = Store(url)
    egress = Egress(networks=tuple(options.external_network), ca_file=options.external_ca_file)
    gateways = [HttpGatewayClient(layout.gateway_socket_of(number), token) for number in range(options.gateways)]
    gateway = EveryGateway(gateways) if len(gateways) > 1 else gateways[0]
    checker = FolderChecker(layout.data_dir, Credentials(layout.credentials).options, make_ready)
    reconciler = Reconciler(
        store, gateway, gateways=options.gateways, checker=checker, egress=egress, data_dir=layout.data_dir
    )
    mirrors = tuple(read_mirror(each) for each in options.model_mirror)
    application = create_app(store, reconciler, layout, internal_token=token, mirrors=mirrors, gateways=tuple(gateways))
    api = server(application, drain_timeout_s=API_DRAIN_S)
    serving = asyncio.create_task(api.serve(sockets=[unix_socket(layout.control_socket)]))
    beside = [
        asyncio.create_task(work)
        for work in (
            reconciler.run(),
            InferenceTables(store, layout).run(),
            UsageIngester(store, layout.usage_dir, watched=reconciler.wake).run(),
            Forgetter(store, kept_days=options.keep_history).run(),
            _count_rows(store),
        )
    ]
    await api.accepting.wait()
    process.settle()
    process.notify(options, "ready")
    await stop.wait()
    for task in beside:
        task.cancel()
    api.should_exit = True
    await asyncio.gather(serving, *beside, return_exceptions=True)
    store.close()


async def _count_rows(store: Store) -> None:
    """At the start, when little asks, and now and then, for rows come."""
    while True:
        await store.count_rows()
        await asyncio.sleep(COUNT_ROWS_EVERY_S)


def main() -> None:
    """Entry of the process."""
    parser = process.arguments(__doc__)
    parser.add_argument("--external-network", action="append", default=[], help="where external servers may be")
    parser.add_argument("--external-ca-file", default="", help="authorities trusted for external servers")
    parser.add_argument("--model-mirror", action="append", default=[], help="where published models are kept")
    parser.add_argument("--gateways", type=int, default=1, help="how many gateway processes there are")
    parser.add_argument("--keep-history", type=float, default=KEPT_DAYS, help="days that what is over is kept")
    options = process.parse(parser)
    layout = process.begin("control", options)
    uvloop.run(_run(layout, options))


if __name__ == "__main__":
    main()
