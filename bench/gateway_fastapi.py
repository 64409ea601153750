"""The proxy that is written first: FastAPI before httpx, as it is in many a product.

python gateway_fastapi.py PORT ENGINE_PORT
"""

from __future__ import annotations

import sys

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.background import BackgroundTask

from gateway_nginx import PATH

_TIMEOUT_S = 120.0


def _application(engine_port: int) -> FastAPI:
    application = FastAPI()
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{engine_port}",
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=512),
        timeout=_TIMEOUT_S,
        trust_env=False,
    )

    @application.post(PATH)
    async def chat(request: Request) -> Response:
        body = await request.json()
        answer = await client.send(client.build_request("POST", PATH, json=body), stream=True)
        media_type = answer.headers["content-type"]
        if body.get("stream"):
            closing = BackgroundTask(answer.aclose)
            return StreamingResponse(answer.aiter_raw(), answer.status_code, None, media_type, closing)
        return Response(await answer.aread(), answer.status_code, None, media_type)

    return application


if __name__ == "__main__":
    uvicorn.run(
        _application(int(sys.argv[2])), port=int(sys.argv[1]), log_level="warning", access_log=False, backlog=2048
    )
