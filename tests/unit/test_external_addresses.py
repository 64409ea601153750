"""Base URLs and keys of external servers, and where such a server may be."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.external import target
from headrace.resources.egress import EVERYWHERE, Egress, permitted, read_network
from headrace.resources.errors import BadField, ExternalAddressForbidden
from headrace.resources.external import check_key, read_base_url

METADATA = ["169.254.169.254", "fe80::1", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"]
NO_SERVERS = ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "::ffff:169.254.169.254", "2002:a9fe:a9fe::"]
INSIDE = ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "100.64.0.1", "fd12::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com:443/v1/", "https://api.example.com/v1"),
        ("HTTP://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("https://[2001:db8::1]:8443/openai/v1", "https://[2001:db8::1]:8443/openai/v1"),
    ],
)
def test_a_base_url_has_one_way_to_be_written(text: str, written: str) -> None:
    """However it comes, it is stored the same way, and reading it again changes nothing."""
    assert str(read_base_url(text)) == written
    assert str(read_base_url(written)) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api.example.com/v1",
        "ftp://h/v1",
        "https://",
        "https:///v1",
        "https://h:0/v1",
        "https://h:99999/v1",
        "https://h/v1?api-key=s3cret",
        "https://h/v1#s3cret",
        "https://user:s3cret@h/v1",
        "https://h/a b",
        "https://h/a\r\nx: y",
        "https://h\u00f6st/v1",
        "https://h/" + "a" * 3000,
        "unix:/run/x.sock",
        "https://h//v1",
    ],
)
def test_what_is_no_base_url_is_refused(text: str) -> None:
    """More than an address, or less, is refused; a secret inside is not repeated."""
    with pytest.raises(BadField) as refused:
        read_base_url(text)
    assert "s3cret" not in str(refused.value)


@given(st.text())
def test_any_text_is_a_base_url_or_refused(text: str) -> None:
    """Whatever is typed either is a base URL that stays itself, or a BAD_FIELD."""
    try:
        url = read_base_url(text)
    except BadField:
        return
    assert read_base_url(str(url)) == url


@given(st.text(max_size=40))
def test_a_key_can_go_into_a_header_or_is_refused(key: str) -> None:
    """A key that is taken has visible ASCII alone; one that is not is never shown."""
    if all("\x21" <= character <= "\x7e" for character in key):
        check_key(key)
        return
    with pytest.raises(BadField) as refused:
        check_key(key)
    assert refused.value.evidence.startswith(f"It has {len(key)} characters, ")


def test_a_key_has_a_longest_length() -> None:
    """A file that is no key is not sent as one."""
    with pytest.raises(BadField, match="key"):
        check_key("a" * 10_000)


@pytest.mark.parametrize("address", METADATA + NO_SERVERS)
def test_metadata_and_addresses_of_no_server_are_never_open(address: str) -> None:
    """Where clouds keep their credentials nobody may look, however the address is written."""
    with pytest.raises(ExternalAddressForbidden, match="Nobody can open"):
        permitted([address], EVERYWHERE, host="h")


@pytest.mark.parametrize("address", INSIDE)
def test_private_addresses_are_open_to_administrators(address: str) -> None:
    """This machine and private networks are closed to who may only deploy, and open where somebody opened them."""
    with pytest.raises(ExternalAddressForbidden, match="external-network"):
        permitted([address], Egress().networks_for(anywhere=False), host="h")
    assert permitted([address], Egress().networks_for(anywhere=True), host="h") == [address]


def test_a_network_is_opened_alone() -> None:
    """What the operator opens is open, and nothing beside it."""
    egress = Egress(networks=(read_network("10.1.0.0/16"),))
    assert permitted(["10.1.9.9", "10.2.0.1", "8.8.8.8"], egress.networks, host="h") == ["10.1.9.9", "8.8.8.8"]
    with pytest.raises(ExternalAddressForbidden):
        permitted(["10.2.0.1"], egress.networks, host="h")
    with pytest.raises(BadField):
        read_network("10.1.0.0/99")


@given(st.ip_addresses())
def test_no_address_inside_slips_through(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Of all addresses, those that are taken without a setting are of the public internet."""
    try:
        permitted([str(address)], (), host="h")
    except ExternalAddressForbidden:
        return
    assert not address.is_private
    assert not address.is_loopback
    assert not address.is_link_local


ISATAP_LOCAL, ISATAP_WORLD = 0x5EFE << 32, 0x02005EFE << 32
HIDING: dict[str, Callable[[int], int]] = {
    "mapped": lambda inner: 0xFFFF << 32 | inner,
    "compatible": lambda inner: inner,
    "translated": lambda inner: 0xFFFF << 48 | inner,
    "NAT64": lambda inner: 0x64FF9B << 96 | inner,
    "local NAT64 /96": lambda inner: 0x64FF9B0001 << 80 | inner,
    "local NAT64 /64": lambda inner: 0x64FF9B0001 << 80 | inner << 24,
    "local NAT64 /56": lambda inner: 0x64FF9B0001 << 80 | (inner >> 24) << 64 | (inner & 0xFFFFFF) << 32,
    "local NAT64 /48": lambda inner: 0x64FF9B0001 << 80 | (inner >> 16) << 64 | (inner & 0xFFFF) << 40,
    "6to4": lambda inner: 0x2002 << 112 | inner << 80 | 1,
    "Teredo's server": lambda inner: 0x20010000 << 96 | inner << 64 | 0xF7F7F7F7,
    "Teredo's client": lambda inner: 0x20010000 << 96 | 0x08080808 << 64 | inner ^ 0xFFFFFFFF,
    "ISATAP": lambda inner: 0x2A00 << 112 | ISATAP_LOCAL | inner,
    "ISATAP of the world": lambda inner: 0x2A00 << 112 | ISATAP_WORLD | inner,
    "ISATAP in 6to4": lambda inner: 0x2002_08080808 << 80 | ISATAP_LOCAL | inner,
}


@pytest.mark.parametrize("way", HIDING)
@given(inner=st.ip_addresses(v=4))
def test_no_ipv4_address_hides_in_an_ipv6_one(way: str, inner: ipaddress.IPv4Address) -> None:
    """What may not be called as an IPv4 address may not be in any of the forms that carry it over IPv6."""
    address = str(ipaddress.IPv6Address(HIDING[way](int(inner))))
    try:
        permitted([str(inner)], (), host="h")
    except ExternalAddressForbidden:
        with pytest.raises(ExternalAddressForbidden):
            permitted([address], (), host="h")


@pytest.mark.parametrize("way", HIDING)
@pytest.mark.parametrize("metadata", ["169.254.169.254", "100.100.100.200", "168.63.129.16"])
def test_metadata_hides_from_nobody(way: str, metadata: str) -> None:
    """An administrator too reaches no cloud's metadata by writing its address another way."""
    address = str(ipaddress.IPv6Address(HIDING[way](int(ipaddress.IPv4Address(metadata)))))
    with pytest.raises(ExternalAddressForbidden, match="Nobody can open"):
        permitted([address], EVERYWHERE, host="h")


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_the_public_internet_is_open(address: str) -> None:
    """Whoever may deploy reaches every address of the internet, through a network's NAT64 too."""
    assert permitted([address], (), host="h") == [address]


@pytest.mark.parametrize(
    "address",
    ["fec0::1", "64:ff9b:1::1.2.3.4", "::8.8.8.8", "5f00::1", "3fff::1", "100::1", "2001:db8::1", "192.0.0.8"],
)
def test_what_is_not_of_the_internet_has_to_be_opened(address: str) -> None:
    """Networks that nobody routes in public are private ones, known to this Python as such or not."""
    with pytest.raises(ExternalAddressForbidden, match="external-network"):
        permitted([address], (), host="h")
    assert permitted([address], EVERYWHERE, host="h") == [address]


@pytest.mark.parametrize(
    ("base_path", "path", "there"),
    [
        ("/v1", "/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1", "/v1/completions", "/openai/v1/completions"),
        ("", "/v1/embeddings", "/embeddings"),
        ("/v1", "/tokenize", "/tokenize"),
    ],
)
def test_a_base_path_takes_the_place_of_ours(base_path: str, path: str, there: str) -> None:
    """What our engines have below /v1, a server has below its base URL; the rest beside that."""
    assert target(base_path, path) == there
