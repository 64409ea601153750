"""The private certificate authority, its certificates and their renewal, and certificates that change."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import os
import socket
import ssl
import stat
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from event_loops import Loop, on_both_loops, run
from gateway_serving import serving
from tls_certificates import authority_in, self_signed

from headrace.gateway.exchange import Exchange
from headrace.gateway.http1 import HttpServer
from headrace.resources.errors import BadField, TlsAuthorityNotFound, TlsCertificateInvalid
from headrace.resources.layout import Layout
from headrace.server.tls.authority import authority_certificate, fingerprint
from headrace.server.tls.certify import certify
from headrace.server.tls.files import CertificateFiles, FollowedCertificate
from headrace.server.tls.names import LOCAL_NAMES, read_name, served_names
from headrace.server.tls.port import TlsPort
from headrace.server.tls.renewal import keep_renewed

START = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
NAMES = (*LOCAL_NAMES, "models.example.org", "10.1.2.3")


def days(number: float) -> datetime.datetime:
    """So many days after the first certificate was made."""
    return START + datetime.timedelta(days=number)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A data directory with an authority and a certificate, made at `START`."""
    layout = Layout(tmp_path / "data")
    assert certify(layout, NAMES, now=START)
    return layout


def test_the_authority_is_made_once_and_private(layout: Layout) -> None:
    """A second start finds it and the certificate as they are; nobody else may read a key."""
    files = (layout.tls_authority, layout.tls_authority_key, layout.tls_certificate)
    before = [path.read_bytes() for path in files]
    assert not certify(layout, NAMES, now=days(1))
    assert [path.read_bytes() for path in files] == before
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 3
    assert stat.S_IMODE(layout.tls_dir.stat().st_mode) == 0o700
    assert b"PRIVATE" not in layout.tls_authority.read_bytes()


def test_clients_that_trust_the_authority_believe_the_certificate(layout: Layout) -> None:
    """For each of its names, by the rules of the web, and for no other name."""
    authority = authority_certificate(layout)
    leaf = x509.load_pem_x509_certificate(layout.tls_certificate.read_bytes())
    policy = PolicyBuilder().store(Store([authority])).time(days(1).replace(tzinfo=None))
    for name in NAMES:
        try:
            subject: x509.DNSName | x509.IPAddress = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            subject = x509.DNSName(name)
        policy.build_server_verifier(subject).verify(leaf, [])
    with pytest.raises(x509.verification.VerificationError):
        policy.build_server_verifier(x509.DNSName("example.org")).verify(leaf, [])
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(("after_days", "renewed"), [(0, False), (59, False), (61, True), (91, True), (-1, True)])
def test_renewal_is_in_time(layout: Layout, after_days: int, renewed: bool) -> None:
    """It is replaced once a third of its time is left, or where its time is not now; by the same authority."""
    before = layout.tls_certificate.read_bytes(), layout.tls_authority.read_bytes()
    assert certify(layout, NAMES, now=days(after_days)) == renewed
    assert (layout.tls_certificate.read_bytes() != before[0]) == renewed
    assert layout.tls_authority.read_bytes() == before[1]
    assert not certify(layout, NAMES, now=days(after_days)), "once is enough"


def test_other_names_need_another_certificate(layout: Layout) -> None:
    """One name more or one less replaces it; another order does not."""
    assert not certify(layout, NAMES[::-1], now=days(1))
    assert certify(layout, (*NAMES, "*.example.org"), now=days(1))
    assert certify(layout, NAMES, now=days(1))


@pytest.mark.parametrize("damage", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\n", "another authority's"])
def test_a_certificate_that_is_none_is_replaced(layout: Layout, tmp_path: Path, damage: bytes | str) -> None:
    """Whatever is in its place, there is a good one afterwards."""
    if isinstance(damage, str):
        other = Layout(tmp_path / "other")
        certify(other, NAMES, now=START)
        damage = other.tls_certificate.read_bytes()
    layout.tls_certificate.write_bytes(damage)
    assert certify(layout, NAMES, now=days(1))
    x509.load_pem_x509_certificate(layout.tls_certificate.read_bytes()).verify_directly_issued_by(
        authority_certificate(layout)
    )


def test_no_certificate_outlives_its_authority(layout: Layout) -> None:
    """In the authority's last weeks certificates end with it, and are not made anew each time; then it says so."""
    assert certify(layout, NAMES, now=days(3640))
    assert not certify(layout, NAMES, now=days(3640))
    leaf = x509.load_pem_x509_certificate(layout.tls_certificate.read_bytes())
    assert leaf.not_valid_after_utc == authority_certificate(layout).not_valid_after_utc == days(3650)
    with pytest.raises(TlsCertificateInvalid) as caught:
        certify(layout, NAMES, now=days(3651))
    assert "2036" in caught.value.evidence


@pytest.mark.parametrize("damage", ["no key", "no certificate", "another key"])
def test_a_damaged_authority_is_told_of(layout: Layout, tmp_path: Path, damage: str) -> None:
    """It is never replaced behind the operator's back, for every client would have to be given the new one."""
    if damage == "no key":
        layout.tls_authority_key.unlink()
    elif damage == "no certificate":
        layout.tls_authority.write_bytes(b"nothing")
    else:
        layout.tls_authority_key.write_bytes(self_signed(tmp_path).key.read_bytes())
    with pytest.raises(TlsCertificateInvalid) as caught:
        certify(layout, NAMES, now=days(1))
    assert "headrace ca export" in caught.value.fix


def test_no_authority(tmp_path: Path) -> None:
    """Who asks for one that was never made is told how it is made."""
    with pytest.raises(TlsAuthorityNotFound) as caught:
        authority_certificate(Layout(tmp_path))
    assert "--tls-port" in caught.value.fix


def test_the_fingerprint_is_the_usual_one(layout: Layout) -> None:
    """SHA-256 of the certificate's bytes, in pairs of hexadecimal digits."""
    import hashlib

    der = ssl.PEM_cert_to_DER_cert(layout.tls_authority.read_text())
    shown = fingerprint(authority_certificate(layout))
    assert shown.replace(":", "").lower() == hashlib.sha256(der).hexdigest()
    assert len(shown) == 32 * 3 - 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Models.Example.org.", "models.example.org"),
        ("*.example.org", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("my_machine", "my_machine"),
        ("10.1.2.3", "10.1.2.3"),
        ("[FD00::0001]", "fd00::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_names_are_written_as_certificates_have_them(text: str, name: str) -> None:
    """In lower case, other scripts in Punycode, addresses in their short form."""
    assert read_name(text) == name


@pytest.mark.parametrize("text", ["", ".", "https://a", "a:443", "a b", "-a", "a..b", "a.*.b", "x" * 64, "a." * 130])
def test_what_is_no_name(text: str) -> None:
    """It is refused before a certificate is made of it."""
    with pytest.raises(BadField):
        read_name(text)


def test_a_machine_is_called_by_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host name and the address that it listens on are in the certificate, unless they cannot be."""
    monkeypatch.setattr(socket, "gethostname", lambda: "Node7")
    assert served_names(["10.1.2.3"], ["a.b"]) == (*LOCAL_NAMES, "node7", "10.1.2.3", "a.b")
    monkeypatch.setattr(socket, "gethostname", lambda: "not a name")
    assert served_names(["not a name", "127.0.0.1"], []) == LOCAL_NAMES


def test_who_listens_everywhere_is_called_by_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its interfaces, always in one order; not those that nobody else can reach it by."""
    monkeypatch.setattr(socket, "gethostname", lambda: "not a name")
    addresses = ["fe80::1%eth0", "2001:db8::7", "169.254.0.9", "10.1.2.3", "10.0.0.9", "127.0.0.1", "::1"]
    families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
    own = [SimpleNamespace(family=family, address=address) for family, address in zip(families, addresses, strict=True)]
    link = SimpleNamespace(family=socket.AF_PACKET, address="02:fc:00:00:00:05")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": [link, *own[:4]], "eth1": own[4:]})
    every = (*LOCAL_NAMES, "10.0.0.9", "10.1.2.3", "2001:db8::7")
    assert served_names(["0.0.0.0"], []) == served_names(["::"], []) == every
    assert served_names(["0", "0.0.0.0"], []) == served_names(["0:0::", "::"], []) == every, "however it was written"
    assert served_names(["127.2", "127.0.0.2"], ["a.b"])[-2:] == ("127.0.0.2", "a.b")
    assert served_names(["10.1.2.3", "10.1.2.3"], []) == (*LOCAL_NAMES, "10.1.2.3")


def test_a_server_that_runs_renews_and_says_when_it_cannot() -> None:
    """A renewal that fails is told of and tried again, whatever the reason."""

    async def main() -> None:
        failures = [TlsCertificateInvalid("It ran out."), OSError("no more processes"), None]
        tried = asyncio.Semaphore(0)
        said: list[str] = []

        async def renew() -> None:
            tried.release()
            if failures and (failure := failures.pop(0)) is not None:
                raise failure

        keeping = asyncio.create_task(keep_renewed(renew, said.append, every_s=0.001))
        for _ in range(5):
            await tried.acquire()
        keeping.cancel()
        assert [sentence.rpartition(": ")[2] for sentence in said] == ["It ran out.", "no more processes"]

    asyncio.run(main())


# --- certificates that change ---------------------------------------------------------------------------------------


async def hello(exchange: Exchange) -> None:
    """An answer."""
    await exchange.answer(200, [], b"hello")


def trusting() -> ssl.SSLContext:
    """A client that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def shown_at(port: int) -> bytes:
    """The certificate that a new connection is shown, in DER."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    assert isinstance(shown, bytes)
    return shown


def der(files: CertificateFiles) -> bytes:
    """The certificate in a file."""
    return ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


def replace_with(files: CertificateFiles, other: CertificateFiles) -> None:
    """Put another pair in the place of one, each file at once, as those who renew certificates do."""
    os.replace(other.certificate, files.certificate)
    os.replace(other.key, files.key)


@on_both_loops
def test_a_new_certificate_is_shown_to_new_connections(tmp_path: Path, loop: Loop) -> None:
    """Also one with a key of another kind; a connection that stands goes on, and a broken pair changes nothing."""

    async def main() -> None:
        (tmp_path / "other").mkdir()
        files = self_signed(tmp_path, kind="rsa")
        followed = FollowedCertificate(files)
        assert followed.look()
        async with serving(hello, tls=followed.context) as url:
            port = int(url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
            first = der(files)
            assert await shown_at(port) == first
            assert not followed.look(), "nothing has changed"
            replace_with(files, self_signed(tmp_path / "other", kind="ec"))
            assert await shown_at(port) == first, "nobody has looked yet"
            assert followed.look()
            second = der(files)
            assert await shown_at(port) == second != first
            files.certificate.write_bytes(self_signed(tmp_path / "other").certificate.read_bytes())
            with pytest.raises(TlsCertificateInvalid):
                followed.look()
            assert not followed.look(), "it is said once"
            assert await shown_at(port) == second
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"hello")
            writer.close()

    run(main(), loop)


@on_both_loops
def test_a_port_without_a_certificate_waits_for_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loop: Loop
) -> None:
    """A gateway that starts while the pair is broken says so, and whoever connected is served once it is whole."""

    async def main() -> None:
        files = self_signed(tmp_path)
        whole = files.key.read_bytes()
        files.key.write_bytes(whole[:40])
        server = HttpServer(hello)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = TlsPort(server, listener, FollowedCertificate(files))
            with caplog.at_level(logging.INFO):
                await port.look()
            assert "nobody can connect by TLS" in caplog.text
            connecting = asyncio.create_task(shown_at(listener.getsockname()[1]))
            files.key.write_bytes(whole)
            await port.look()
            assert await connecting == der(files)
            await server.close(0)

    run(main(), loop)


@pytest.mark.parametrize("damage", ["encrypted", "swapped", "missing", "another's"])
def test_what_is_no_pair(tmp_path: Path, damage: str) -> None:
    """It is refused with the reason; nobody is asked for a passphrase."""
    (tmp_path / "other").mkdir()
    files = self_signed(tmp_path, password=b"secret" if damage == "encrypted" else None)
    if damage == "swapped":
        files = CertificateFiles(files.key, files.certificate)
    elif damage == "missing":
        files.key.unlink()
    elif damage == "another's":
        files.key.write_bytes(self_signed(tmp_path / "other").key.read_bytes())
    with pytest.raises(TlsCertificateInvalid) as caught:
        files.context()
    assert len(caught.value.evidence) > len("None.")


def test_certificate_and_key_may_be_one_file(tmp_path: Path) -> None:
    """In either order, as those of the private authority are."""
    files = self_signed(tmp_path)
    one = tmp_path / "one.pem"
    for parts in ((files.certificate, files.key), (files.key, files.certificate)):
        one.write_bytes(b"".join(path.read_bytes() for path in parts))
        CertificateFiles(one, one).context()
    authority_in(tmp_path / "data")
