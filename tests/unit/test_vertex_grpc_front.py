"""Vertex AI over gRPC before a real gateway: answers, streams, errors, cancellation, deadlines, and the end."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from event_loops import run
from gateway_serving import KEY, OTHER_KEY, SCOPE, deployed, gateway_before, serving
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tls_certificates import now
from vertex_grpc_serving import PREDICTION, Caller, speaking_grpc

from headrace.gateway.exchange import Exchange
from headrace.resources.layout import Layout
from headrace.server.tls.certify import certify
from headrace.server.tls.files import CertificateFiles
from headrace.server.tls.names import LOCAL_NAMES
from headrace.server.vertex_grpc.credentials import FollowedPair
from standin import Script, StandIn

ENDPOINT = f"{SCOPE}/endpoints/e1"
PREDICT = {"endpoint": ENDPOINT, "instances": [{"prompt": "a", "max_tokens": 3}]}
LOCATIONS = "/google.cloud.location.Locations/ListLocations"


def raw(body: dict[str, Any]) -> dict[str, Any]:
    """A request with a body as it is."""
    import base64

    data = base64.b64encode(json.dumps(body).encode()).decode()
    return {"endpoint": ENDPOINT, "httpBody": {"contentType": "application/json", "data": data}}


@asynccontextmanager
async def before_an_engine(folder: Path) -> AsyncIterator[tuple[StandIn, Caller]]:
    """A stand-in behind a gateway, and a client of what speaks gRPC before that."""
    async with (
        StandIn(folder / "e") as engine,
        gateway_before(folder, deployed(engine.address)) as served,
        speaking_grpc(folder, served.url) as grpc_,
    ):
        yield engine, grpc_


def test_predict_and_its_raw_twin(tmp_path: Path) -> None:
    """The same predictions as over HTTP, as a message and as the body that they are."""

    async def main() -> None:
        async with before_an_engine(tmp_path) as (engine, grpc_):
            call = grpc_.call(f"{PREDICTION}/Predict", PREDICT, key=KEY)
            answer = await call
            assert [each.string_value for each in answer.predictions] == ["Prompt:\na\nOutput:\ntok tok tok "]
            assert answer.deployed_model_id == "d1"
            assert dict(await call.initial_metadata())["x-request-id"]
            assert engine.seen.bodies[0]["max_tokens"] == 3
            body = await grpc_.call(f"{PREDICTION}/RawPredict", raw({"instances": ["a"]}), key=KEY)
            assert body.content_type == "application/json"
            assert json.loads(body.data) == {"predictions": ["Prompt:\na\nOutput:\ntok tok tok "]}

    asyncio.run(main())


def test_streams_come_as_they_are_made(tmp_path: Path) -> None:
    """Each piece is there before the next one is made."""

    async def main() -> None:
        async with before_an_engine(tmp_path) as (engine, grpc_):
            engine.script = Script(chunks=3, gated=True)
            body = raw({"instances": [{"prompt": "a", "stream": True}]})
            stream = grpc_.call(f"{PREDICTION}/StreamRawPredict", body, key=KEY)
            for _ in range(3):
                engine.gate.release()
                assert json.loads((await stream.read()).data) == {"predictions": ["tok "]}
            engine.gate.release()
            assert await stream.read() is grpc.aio.EOF

    asyncio.run(main())


@pytest.mark.parametrize("method", ["Predict", "StreamRawPredict"])
def test_a_cancelled_call_stops_the_engine(tmp_path: Path, method: str) -> None:
    """A client that cancels takes its request back at once, all the way to the engine."""

    async def main() -> None:
        async with before_an_engine(tmp_path) as (engine, grpc_):
            engine.script = Script(hang=True)
            body = PREDICT if method == "Predict" else raw({"instances": [{"prompt": "a", "stream": True}]})
            call = grpc_.call(f"{PREDICTION}/{method}", body, key=KEY)
            reading = asyncio.ensure_future(call.read() if method != "Predict" else call)
            await engine.until(began=1)
            call.cancel()
            await engine.until(cancelled=1)
            with pytest.raises(asyncio.CancelledError):
                await reading

    asyncio.run(main())


def test_a_deadline_goes_with_the_request(tmp_path: Path) -> None:
    """The gateway knows how long the client waits; when that is over, the engine is stopped too."""

    async def main() -> None:
        async with before_an_engine(tmp_path) as (engine, grpc_):
            engine.script = Script(hang=True)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await grpc_.call(f"{PREDICTION}/Predict", PREDICT, key=KEY, timeout=0.5)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await engine.until(cancelled=1)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("key", "endpoint", "code", "reason"),
    [
        ("", ENDPOINT, grpc.StatusCode.UNAUTHENTICATED, "NO_KEY"),
        (OTHER_KEY, ENDPOINT, grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"),
        (KEY, f"{SCOPE}/endpoints/nobody", grpc.StatusCode.NOT_FOUND, "ENDPOINT_NOT_FOUND"),
        (KEY, "nothing", grpc.StatusCode.INVALID_ARGUMENT, "BAD_FIELD"),
    ],
)
def test_errors_keep_their_details(tmp_path: Path, key: str, endpoint: str, code: grpc.StatusCode, reason: str) -> None:
    """Code, reason and fix are what they are over HTTP, as clients of both generations read them."""

    async def main() -> None:
        async with gateway_before(tmp_path) as served, speaking_grpc(tmp_path, served.url) as grpc_:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await grpc_.call(f"{PREDICTION}/Predict", PREDICT | {"endpoint": endpoint}, key=key)
            assert caught.value.code() is code
            status = await rpc_status.aio.from_call(_Ended(caught.value))
            told = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(told)
            assert told.reason == reason
            assert status.message == caught.value.details()

    asyncio.run(main())


class _Ended:
    """An error as a call that has ended, which is what grpc_status reads."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    async def trailing_metadata(self) -> Any:
        return self._error.trailing_metadata()

    async def code(self) -> Any:
        return self._error.code()

    async def details(self) -> Any:
        return self._error.details()


def test_what_is_not_there(tmp_path: Path) -> None:
    """An unknown method is unimplemented, bytes that are no message are bad input, no gateway is unavailable."""

    async def main() -> None:
        async with speaking_grpc(tmp_path, f"unix:{tmp_path / 'nobody'}") as grpc_:
            for path, body, code in (
                (f"{PREDICTION}/Nothing", b"", grpc.StatusCode.UNIMPLEMENTED),
                (f"{PREDICTION}/Predict", b"\xff", grpc.StatusCode.INVALID_ARGUMENT),
                (f"{PREDICTION}/Predict", b"\x0a\x03abc", grpc.StatusCode.INVALID_ARGUMENT),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await grpc_._channel.unary_unary(path)(body)
                assert caught.value.code() is code
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await grpc_.call(LOCATIONS, {"name": "projects/p"})
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


def test_messages_of_a_stream_that_fails_in_its_middle(tmp_path: Path) -> None:
    """What came before is kept, and the error is the one that the stream told."""
    error = {"error": {"code": 503, "message": "It ended.", "status": "UNAVAILABLE"}}

    async def answer(exchange: Exchange) -> None:
        await exchange.start(200, [(b"content-type", b"text/event-stream")])
        for document in ({"modelVersion": "one"}, {"modelVersion": "two", "new": 1}, error):
            await exchange.write(b"data: %s\n\n" % json.dumps(document).encode())
        await exchange.end()

    async def main() -> None:
        async with serving(answer) as url, speaking_grpc(tmp_path, url) as grpc_:
            stream = grpc_.call(f"{PREDICTION}/StreamGenerateContent", {"model": ENDPOINT})
            assert [(await stream.read()).model_version for _ in range(2)] == ["one", "two"]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "It ended.")

    asyncio.run(main())


def test_a_slow_reader_is_waited_for(tmp_path: Path) -> None:
    """While a client does not read, what is held of its stream is bounded."""
    sent = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.start(200, [(b"content-type", b"application/octet-stream")])
        for _ in range(2000):
            await exchange.write(b"x" * 65536)
            sent += 65536
        await exchange.end()

    async def main() -> None:
        async with serving(answer) as url, speaking_grpc(tmp_path, url) as grpc_:
            stream = grpc_.call(f"{PREDICTION}/StreamRawPredict", raw({}))
            got = len((await stream.read()).data)
            before = -1
            while sent != before:  # until nothing moves any more
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 48 * 2**20
            while (piece := await stream.read()) is not grpc.aio.EOF:
                got += len(piece.data)
            assert got == sent == 2000 * 65536

    asyncio.run(main())


def test_who_runs_may_finish(tmp_path: Path) -> None:
    """A server that stops takes no new calls, and waits for those that run."""

    async def main() -> None:
        async with before_an_engine(tmp_path) as (engine, grpc_):
            engine.script = Script(gated=True)
            running = asyncio.ensure_future(grpc_.call(f"{PREDICTION}/Predict", PREDICT, key=KEY))
            await engine.until(began=1)
            stopping = asyncio.create_task(grpc_.server.stop(20))
            await asyncio.sleep(0)
            engine.gate.release()
            assert (await running).deployed_model_id == "d1"
            await stopping
            with pytest.raises(grpc.aio.AioRpcError):
                await grpc_.call(f"{PREDICTION}/Predict", PREDICT, key=KEY, timeout=5)

    asyncio.run(main())


def test_a_new_certificate_is_shown_to_new_connections(tmp_path: Path) -> None:
    """The files are looked at before each handshake; a pair that is broken changes nothing."""
    layout = Layout(tmp_path / "data")
    certify(layout, LOCAL_NAMES, now=now())
    files = CertificateFiles(layout.tls_certificate, layout.tls_certificate)

    def shown(port: int) -> bytes | None:
        context = ssl.create_default_context(cafile=layout.tls_authority)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.getpeercert(binary_form=True)

    async def main() -> None:
        server = grpc.aio.server()
        port = server.add_secure_port("127.0.0.1:0", FollowedPair(files).credentials())
        await server.start()
        first = await asyncio.to_thread(shown, port)
        assert await asyncio.to_thread(shown, port) == first
        certify(layout, (*LOCAL_NAMES, "more.example.org"), now=now() + datetime.timedelta(seconds=1))
        second = await asyncio.to_thread(shown, port)
        assert second != first
        layout.tls_certificate.write_bytes(b"broken")
        assert await asyncio.to_thread(shown, port) == second
        await server.stop(None)

    run(main(), asyncio.new_event_loop)
