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

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, section 2.5.5.1
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")  # RFC 2765
_ISATAP = 0x5EFE
"""The middle of an address whose interface is an IPv4 one (RFC 5214), whatever its network."""

_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
"""What IANA has given to the internet; Python counts all as global that is not known to be otherwise."""

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "2001::/23",  # protocol assignments, Teredo among them
        "3fff::/20",  # documentation; Python 3.11 does not know it
    )
)
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
    """Why an address may not be called; empty if it may. Every IPv4 address inside an IPv6 one is judged as itself."""
    meant = _meant(address)
    if any(_lies_in(each, _NEVER) for each in (address, *meant)):
        return _NO_SERVERS
    closed = [each for each in meant if not (_is_public(each) or _lies_in(each, opened))]
    if not closed:
        return ""
    return "on this machine" if any(each.is_loopback for each in closed) else "in a private network"


def _lies_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _is_public(address: Address) -> bool:
    if address.version == 6 and address not in _PUBLIC_IPV6:
        return False
    return address.is_global and not _lies_in(address, _NOT_PUBLIC)


def _meant(address: Address) -> list[Address]:
    """What has to be open for the address to be: itself, and what IPv4 addresses a router may take from within it.

    An IPv4 address that was only written as an IPv6 one stands for it alone.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    last = _ipv4(address, 96)
    if address in _MAPPED or address in _NAT64:
        return [last]
    meant: list[Address] = [address if address.sixtofour is None else address.sixtofour]
    if address in _LOCAL_NAT64:
        meant += [each for each in _translated(address) if int(each) >> 24]  # 0.x.x.x: another length of prefix
    if address.teredo is not None:
        meant += address.teredo
    isatap = (int(address) >> 32) & 0xFDFFFFFF == _ISATAP  # without the bit that says "of the whole world"
    compatible = address in _COMPATIBLE and int(address) > 1  # :: and ::1 are themselves
    if isatap or compatible or address in _TRANSLATED:
        meant.append(last)
    return meant


def _translated(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 address behind a prefix of 48, 56, 64 or 96 bits; bits 64 to 71 are left out (RFC 6052, section 2.2)."""
    bits = int(address)
    without = ipaddress.IPv6Address((bits >> 64 << 64) | (bits << 8) & (2**64 - 1))
    return [_ipv4(without, 48), _ipv4(without, 56), _ipv4(without, 64), _ipv4(address, 96)]


def _ipv4(address: ipaddress.IPv6Address, at: int) -> ipaddress.IPv4Address:
    """The 32 bits that begin at this one."""
    return ipaddress.IPv4Address(int(address) >> (96 - at) & 0xFFFFFFFF)
