"""The data plane, assembled: what one gateway process serves on its two sockets."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST

from headrace.contracts.databricks.errors import databricks_error
from headrace.contracts.databricks.paths import is_databricks_path
from headrace.contracts.openai.errors import openai_error
from headrace.contracts.openai.paths import is_openai_path
from headrace.contracts.vertex.errors import google_error
from headrace.gateway.access_log import log_request
from headrace.gateway.admin import Admin, admin_routes
from headrace.gateway.answering import ErrorShape, send_error, send_json, send_text
from headrace.gateway.authentication import authenticate
from headrace.gateway.budgets import Budgets
from headrace.gateway.client_credentials import grant_token, tell_ways_in
from headrace.gateway.control_proxy import forward_to_control
from headrace.gateway.engine_metrics import engine_metrics
from headrace.gateway.exchange import ClientGone, Exchange
from headrace.gateway.handover import NOTE_EVERY_S, Handover
from headrace.gateway.inference import Inference
from headrace.gateway.lease_link import LeaseLink
from headrace.gateway.leases import Leases
from headrace.gateway.limit_notes import LimitNotes
from headrace.gateway.limits import Limits
from headrace.gateway.metrics import Metrics
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_log import RequestLogger
from headrace.gateway.routes import INFERRING, PUBLIC_PATHS, Action, Match, RouteEntry, gateway_routes, match
from headrace.gateway.routing import Routing
from headrace.gateway.siblings import Sibling, Siblings
from headrace.gateway.snapshot_file import load_newest
from headrace.gateway.standstill import Standstills
from headrace.gateway.token_endpoint import exchange_token
from headrace.gateway.upstream import Upstream, read_address
from headrace.gateway.usage_log import UsageLog
from headrace.request_log import LogFiles
from headrace.resources.access import EVERY_PROJECT, Permission
from headrace.resources.errors import Draining, HeadraceError, InternalError, MethodNotAllowed, UnknownPath
from headrace.resources.usage import USAGE_FOLDER

if TYPE_CHECKING:
    from headrace.gateway.tracing import Tracing

_LOGGER = logging.getLogger(__name__)

_WELCOME = b"""Headrace serves models here.

/v1            OpenAI's API: /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings
/v1/projects   Vertex AI's API
/api/2.0       Databricks' API; /serving-endpoints: inference as its clients ask for it
/metrics       for Prometheus
/healthz       whether this process runs
/readyz        whether it takes requests

All but the last two want a key: Authorization: Bearer KEY
"""
"""What a browser shows of the port."""

CLIENT_LEFT = 499
"""What the log says of a client that hung up before its answer began; nginx's number, no client ever sees it."""


class Gateway:
    """Authenticates, routes, admits, balances, streams and meters. Starts with the snapshot on disk, if there is one.

    Args:
        snapshot_path: Where the newest routing snapshot is kept; beside it goes what requests used.
        control_address: ``unix:/path`` or ``http://host:port`` of the control plane.
        admin_token: The internal token; whoever pushes snapshots must show it.
        limits: How much of everything it takes.
        log_files: How the files of the request log are kept.
        tracing: Makes spans; None: there are none.
        number: Of this gateway, among those that serve the same port.
        others: Those.
        usage_folder: Where what requests used is written, if not beside the snapshot.

    Attributes:
        admin: Answers exchanges of the admin socket.
    """

    def __init__(
        self,
        *,
        snapshot_path: Path,
        control_address: str,
        admin_token: str,
        limits: Limits | None = None,
        log_files: LogFiles | None = None,
        tracing: Tracing | None = None,
        number: int = 0,
        others: Sequence[Sibling] = (),
        usage_folder: Path | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._handover = Handover(snapshot_path)
        notes = LimitNotes(snapshot_path)
        leases = None
        if others:
            run = hashlib.sha256(admin_token.encode()).hexdigest()  # a server makes the token anew at each start
            leases = Leases(snapshot_path.with_name("leases.json"), run=run, note=notes.name)
        self._budgets = Budgets(notes, leases=leases)
        self._routing = Routing(
            connect_timeout_s=self._limits.connect_timeout_s, handover=self._handover, budgets=self._budgets
        )
        self._control = Upstream(read_address(control_address), connect_timeout_s=self._limits.connect_timeout_s)
        self._lease_link: LeaseLink | None = None
        if leases is not None:
            self._lease_link = LeaseLink(leases, self._control, number=number, token=admin_token)
        self._siblings = Siblings(number, others, token=admin_token, connect_timeout_s=self._limits.connect_timeout_s)
        self._usage_log = UsageLog(usage_folder or snapshot_path.with_name(USAGE_FOLDER))
        self._tracing = tracing
        self._request_log = RequestLogger(snapshot_path, log_files or LogFiles())
        self._metrics = Metrics(self._routing.fleet, self._usage_log, self._request_log, self._routing.throughputs)
        self._inference = Inference(self._routing, self._limits, self._usage_log, self._request_log)
        self._standstills = Standstills(self._routing.fleet, self._limits.first_byte_timeout_s)
        self._active = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        kept = load_newest((snapshot_path, *(other.snapshot_path for other in others)))
        if kept is not None:
            self._routing.resume(kept)
        self.admin = Admin(self._routing, self._metrics, snapshot_path, token=admin_token, limits=self._limits)

    @staticmethod
    def routes() -> tuple[RouteEntry, ...]:
        """Every route that the gateway answers itself, on both sockets. All others go to control, but ``/internal``."""
        return gateway_routes() + admin_routes()

    @property
    def ready(self) -> bool:
        """Whether it has a snapshot to route by and takes requests."""
        return self._routing.generation > 0 and not self._draining

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self._active

    async def watch(self) -> None:
        """Look for replicas that stand still, until cancelled."""
        await self._standstills.watch()

    async def lease(self) -> None:
        """Agree with control, until cancelled, on what may be given away here; one that is alone needs none of that."""
        if self._lease_link is not None:
            await self._lease_link.run()

    def hand_over(self) -> None:
        """Be ready for no more requests, and leave word of those under way. Then a successor may start."""
        self._draining = True
        self._budgets.hand_over()
        if self._active:
            self._handover.note(self._routing.carried)

    async def drain(self, timeout_s: float, emptied: Callable[[], Awaitable[object]] | None = None) -> int:
        """Wait for the requests under way and those that kept connections still bring; a successor is told of them.

        Args:
            timeout_s: How long to wait.
            emptied: Waits until no client can bring any more; None: only until nothing is under way.

        Returns:
            How many were still under way when the time was over.
        """
        self.hand_over()
        noting = asyncio.create_task(self._keep_note())
        try:
            async with asyncio.timeout(timeout_s):
                await (emptied or self._idle.wait)()
        except TimeoutError:
            _LOGGER.warning("%d requests were still under way after %g s of draining", self._active, timeout_s)
        finally:
            noting.cancel()
            self._handover.over()
            self._budgets.tell(over=True)
        return self._active

    async def _keep_note(self) -> None:
        """Follow what the successor is told to route by, for revoked keys and for who waits; and tell what is left."""
        while True:
            newest = self._handover.newer_snapshot()
            if newest is not None and newest.generation > self._routing.generation:
                self._routing.follow(newest)
            self._budgets.tell()
            if self._active:
                self._handover.note(self._routing.carried)
            else:
                self._handover.over()
            await asyncio.sleep(NOTE_EVERY_S)

    def break_off(self) -> None:
        """Tell the clients of all that is under way that the server goes down, at the next turn of the event loop."""
        self._routing.running.end(
            Draining("The server went down in the middle of this answer.", fix="Send it again.", retry_after_s=1.0)
        )

    async def close(self) -> None:
        """Close the connections that are kept to engines and control, and the logs; send the last spans."""
        self._routing.fleet.close()
        self._control.close()
        self._siblings.close()
        self._budgets.close()
        self._usage_log.close()
        await asyncio.to_thread(self._request_log.close)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request of the public port."""
        record = RequestRecord(exchange.head)
        matched = match(exchange.head.method, exchange.head.target)
        self._active += 1
        self._idle.clear()
        if self._tracing is not None:
            record.trace = self._tracing.begin(record, exchange.head, matched)
        try:
            if matched.action in INFERRING:
                await self._inference.serve(exchange, record, matched)
            else:
                await self._answer(exchange, record, matched)
        except HeadraceError as error:
            await send_error(exchange, record, error, _error_shape(matched, record.path))
        except (ClientGone, asyncio.CancelledError):
            record.status = record.status or CLIENT_LEFT
            record.code = "CLIENT_LEFT"
            raise
        except Exception:
            _LOGGER.exception("request %s failed", record.request_id)
            defect = InternalError("The gateway failed on this request.", evidence=f"Request {record.request_id}.")
            await send_error(exchange, record, defect, _error_shape(matched, record.path))
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()
            self._metrics.settle(record)
            log_request(record)
            if record.recording is not None:
                record.recording.finish(record)
            if record.trace is not None:
                record.trace.finish(record)

    async def _answer(self, exchange: Exchange, record: RequestRecord, matched: Match) -> None:
        action = matched.action
        if action is Action.HEALTHZ:
            await send_json(exchange, record, {"status": "alive"})
        elif action is Action.READYZ:
            ready = {"status": "ready" if self.ready else "draining" if self._draining else "no routing snapshot yet"}
            await send_json(exchange, record, ready, status=200 if self.ready else 503)
        elif action is Action.ROOT:
            await send_text(exchange, record, _WELCOME, b"text/plain; charset=utf-8")
        elif action is Action.EXCHANGE:
            await exchange_token(exchange, record, self._routing.table)
        elif action is Action.DISCOVER:
            await tell_ways_in(exchange, record)
        elif action is Action.GRANT:
            await grant_token(exchange, record, self._routing.table)
        else:
            await self._answer_with_key(exchange, record, matched)

    async def _answer_with_key(self, exchange: Exchange, record: RequestRecord, matched: Match) -> None:
        if matched.action is Action.PRIVATE:
            raise UnknownPath(f"No route has the path {record.path}.")
        if matched.action is Action.WRONG_METHOD:
            if record.path not in PUBLIC_PATHS:
                authenticate(exchange.head, self._routing.table)  # strangers learn nothing of other paths
            raise MethodNotAllowed(f"{record.path} does not take {exchange.head.method}.", allow=matched.takes)
        if matched.action is Action.METRICS:
            await self._show_metrics(exchange, record)
        else:
            await forward_to_control(exchange, record, self._control, self._limits)

    async def _show_metrics(self, exchange: Exchange, record: RequestRecord) -> None:
        """Those of all gateways and of every engine, for keys that may read every project."""
        principal = authenticate(exchange.head, self._routing.table)
        record.key_id = principal.key_id
        principal.require(Permission.READ, EVERY_PROJECT)
        own = await self._siblings.metrics(await self._metrics.render())
        text = own + await engine_metrics(self._routing.fleet)
        await send_text(exchange, record, text, CONTENT_TYPE_LATEST.encode("ascii"))


def _error_shape(matched: Match, path: str) -> ErrorShape:
    """What shape errors have at a path."""
    if is_databricks_path(path):
        return databricks_error
    others = matched.action in (Action.CONTROL, Action.PRIVATE) and not is_openai_path(path)
    return google_error if "/projects/" in path or others else openai_error
