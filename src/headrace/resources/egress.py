"""Where an external server may be: what the server may call on behalf of those who deploy.

Whoever names a URL makes our machine call it, from inside our network (server-side request forgery). So the rule is
held against the address that is really connected to, after names were looked up, at every connection:

* link-local addresses, where clouds keep their metadata and credentials, and others that no server has: never;
* the public internet: for everyone who may deploy;
* everything else (this machine, private networks): if the deployment was made by an administrator of the whole server,
  or the operator opened that network (``headrace serve --external-network``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

import msgspec

from headrace.resources.errors import BadField, ExternalAddressForbidden

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

EVERYWHERE = ("0.0.0.0/0", "::/0")

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # "this network": Linux takes 0.0.0.0 for itself
        "169.254.0.0/16",  # link-local: the metadata of AWS, Azure, Google Cloud, OpenStack, and most others
        "fe80::/10",  # link-local
        "fd00:ec2::254/128",  # metadata of AWS over IPv6
        "fd20:ce::254/128",  # metadata of Google Cloud over IPv6
        "100.100.100.200/32",  # metadata of Alibaba Cloud
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # metadata of Oracle Cloud
        "::/128",
        "224.0.0.0/4",  # multicast
        "ff00::/8",
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

_NO_SERVERS = "link-local, reserved, or a cloud's metadata"


class Egress(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's settings for external servers.

    Attributes:
        networks: Networks, beyond the public internet, in which everyone who may deploy may name a server.
        ca_file: Certificate authorities (PEM) that are trusted besides the system's; empty for none.
    """

    networks: tuple[str, ...] = ()
    ca_file: str = ""

    def networks_for(self, *, anywhere: bool) -> tuple[str, ...]:
        """What is open to one server besides the public internet."""
        return EVERYWHERE if anywhere else self.networks


def read_network(text: str) -> str:
    """A network in CIDR notation, as `Egress.networks` has it.

    Raises:
        BadField: It is none.
    """
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise BadField(
            f"{text[:60]!r} is no network.", evidence=f"{error}.", fix="Write it like 10.1.0.0/16 or fd12:3456::/32."
        ) from error


def permitted(addresses: Iterable[str], networks: Sequence[str], *, host: str) -> list[str]:
    """Those of a host's addresses that may be called, in their order.

    Args:
        addresses: What the host's name stands for.
        networks: What is open besides the public internet.
        host: The name, for the message.

    Raises:
        ExternalAddressForbidden: None may be.
    """
    refused: dict[str, str] = {}
    allowed = []
    opened = tuple(ipaddress.ip_network(network) for network in networks)
    for text in addresses:
        if why := _refusal(ipaddress.ip_address(text.partition("%")[0]), opened):
            refused[text] = why
        else:
            allowed.append(text)
    if allowed:
        return allowed
    shown = ", ".join(f"{text} is {why}" for text, why in refused.items())
    raise ExternalAddressForbidden(
        f"An external server may not be at {host}.",
        evidence=f"{shown}.",
        fix="Nobody can open this address."
        if set(refused.values()) <= {_NO_SERVERS}
        else "An administrator of every project may deploy it; or the operator opens the network to all who may "
        "deploy: `headrace serve --external-network CIDR`.",
    )


def literal(host: str) -> str | None:
    """The host itself, if it is an IP address."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def on_this_machine(host: str) -> bool:
    """Whether what is sent there crosses no network, as far as its name tells."""
    address = literal(host)
    return host == "localhost" or (address is not None and ipaddress.ip_address(address).is_loopback)


def _refusal(address: Address, opened: Sequence[Network]) -> str:
    """Why an address may not be called; empty if it may. An IPv4 address inside an IPv6 one counts as itself."""
    inner = _within(address)
    if any(each.version == network.version and each in network for each in (address, inner) for network in _NEVER):
        return _NO_SERVERS
    if inner.is_global or any(inner.version == network.version and inner in network for network in opened):
        return ""
    return "on this machine" if inner.is_loopback else "in a private network"


def _within(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
