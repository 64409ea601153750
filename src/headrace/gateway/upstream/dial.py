"""Connections to addresses: unix sockets and TCP to engines of ours, TCP and TLS to servers out there."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from headrace.gateway.upstream.address import Address
from headrace.gateway.upstream.connection import Connection
from headrace.gateway.upstream.errors import Unreachable, Untrusted
from headrace.resources.egress import permitted


class Outside(msgspec.Struct, frozen=True):
    """How a server that is not ours is called.

    Attributes:
        networks: Where it may be besides the public internet.
        ca_file: Certificate authorities that are trusted besides the system's; empty for none.
    """

    networks: tuple[str, ...] = ()
    ca_file: str = ""


async def dial(address: Address, make: Callable[[], Connection], outside: Outside | None) -> Connection:
    """Connect. The caller sets the deadline.

    A server that is not ours is called at an address that was checked after its name was looked up, so that a name
    cannot mean one address to a check and another to the connection.

    Raises:
        Unreachable: There is no connection to be had; `Untrusted` where TLS is the reason.
        ExternalAddressForbidden: The server is where none may be.
    """
    try:
        if outside is not None:
            return await _dial_outside(address, make, outside)
        loop = asyncio.get_running_loop()
        if address.path:
            _, connection = await loop.create_unix_connection(make, address.path)
        else:
            _, connection = await loop.create_connection(make, address.host, address.port)
    except ssl.SSLError as error:
        raise Untrusted(f"{getattr(error, 'verify_message', '') or error.reason or error}.") from error
    except OSError as error:
        raise Unreachable(f"{type(error).__name__}: {error.strerror or error}.") from error
    return connection


async def _dial_outside(address: Address, make: Callable[[], Connection], outside: Outside) -> Connection:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    names = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    candidates = permitted(names, outside.networks, host=address.host)
    context = trust(outside.ca_file) if address.tls else None
    return await _first(candidates, address, make, context)


async def _first(
    candidates: Sequence[str], address: Address, make: Callable[[], Connection], context: ssl.SSLContext | None
) -> Connection:
    """The first of a host's addresses that takes the connection."""
    name = address.host.rstrip(".") if context is not None else None
    *others, last = candidates
    for candidate in others:
        try:
            return await _connect(candidate, address.port, make, context, name)
        except ssl.SSLError:
            raise  # the next address has the same certificate
        except OSError:
            continue
    return await _connect(last, address.port, make, context, name)


async def _connect(
    host: str, port: int, make: Callable[[], Connection], context: ssl.SSLContext | None, name: str | None
) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(make, host, port, ssl=context, server_hostname=name)
    return connection


@lru_cache(maxsize=8)
def trust(ca_file: str) -> ssl.SSLContext:
    """What is believed of TLS servers: certificates for their very name, by the system's authorities and the file's.

    Raises:
        OSError: The file cannot be read, or has no certificates (`ssl.SSLError`).
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
    return context
