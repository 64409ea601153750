"""The node's line to control: orders come by long poll, reports go by PUT. Control being down is an ordinary day."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from headrace.node.http import Answer, HttpClient
from headrace.resources.assignments import NodeOrders, NodeReport
from headrace.resources.errors import ControlPlaneDown

_ANSWER_TIMEOUT_S = 10.0


class ControlLink:
    """Calls to control.

    Args:
        address: ``unix:/path`` or ``http://host:port``.
        token: The internal token.
        node_id: Who calls.
    """

    def __init__(self, address: str, token: str, node_id: str) -> None:
        self._client = HttpClient(address, token)
        self._path = f"/internal/nodes/{quote(node_id, safe='')}"
        self._decoder = msgspec.json.Decoder(NodeOrders)

    async def orders(self, seen: int, wait_s: float) -> NodeOrders | None:
        """The newest orders, as soon as they are others than generation `seen`; None when `wait_s` passed first.

        Generation 0 is a control that has not made any yet: it does not mean that nothing should run.

        Raises:
            ControlPlaneDown: Control gave no answer that could be used.
        """
        answer = await self._send("GET", f"/orders?seen={seen}&wait_s={wait_s:g}", None, wait_s + _ANSWER_TIMEOUT_S)
        try:
            orders = self._decoder.decode(answer.body)
        except msgspec.MsgspecError as error:
            raise ControlPlaneDown("Control's orders cannot be read.", evidence=str(error)) from error
        return None if orders.generation in {0, seen} else orders

    async def report(self, report: NodeReport) -> None:
        """Tell control how things are.

        Raises:
            ControlPlaneDown: Control did not take it.
        """
        await self._send("PUT", "/report", msgspec.json.encode(report), _ANSWER_TIMEOUT_S)

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()

    async def _send(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Answer:
        try:
            answer = await self._client.request(method, self._path + path, body=body, timeout_s=timeout_s)
        except ConnectionError as error:
            raise ControlPlaneDown("Control does not answer.", evidence=str(error)) from error
        if not answer.ok:
            evidence = f"{method} {path} gave {answer.status}: {answer.body[:300].decode(errors='replace')}"
            raise ControlPlaneDown("Control refused a call of this node.", evidence=evidence)
        return answer
