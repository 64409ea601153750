"""External servers: models that stand behind any OpenAI-compatible base URL and are not ours to start or stop."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from headrace.resources.errors import BadField

EXTERNAL = "external"
"""The name under which a deployment's ``runtime`` says that there is none: somebody else's server does the work."""

MAX_URL_CHARACTERS = 2048
MAX_MODEL_CHARACTERS = 512
MAX_KEY_CHARACTERS = 8192
"""The longest keys in use are signed tokens of some 2,000 characters."""

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?|[0-9A-Fa-f:.]+")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_KEY = re.compile(r"[\x21-\x7e]*")


class BaseUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A base URL as OpenAI's clients take one: requests go to it with ``/chat/completions`` and so on behind.

    Attributes:
        scheme: ``http`` or ``https``.
        host: A name, or an IP address without brackets.
        path: Without a slash at its end; empty for none.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def origin(self) -> str:
        """Scheme, host and port, the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    def __str__(self) -> str:
        return self.origin + self.path


class ExternalServer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The server behind a version, and the model of it. Its key is not here: only its replica's row has that.

    Attributes:
        base_url: As `BaseUrl` writes it.
        model: The name that the server knows the model by.
        anywhere: Whether it may be in a private network, or on this machine: whoever named it administers the whole
            server. `headrace.resources.egress` has the rules.
    """

    base_url: str
    model: str
    anywhere: bool = False


def read_base_url(text: str) -> BaseUrl:
    """A base URL in its parts.

    Raises:
        BadField: It is none, or carries more than an address: a password, a query, a fragment.
    """
    if len(text) > MAX_URL_CHARACTERS:
        raise _bad_url("It is too long.", f"It has {len(text):,} characters; {MAX_URL_CHARACTERS:,} are allowed.")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _bad_url("It cannot be read.", f"{error}.") from error
    if "@" in parts.netloc:  # not shown: what stands before the @ is a secret
        raise _bad_url("It carries a user or a password.", "There is an @ in it.")
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host) or port == 0:
        raise _bad_url("It has no host that can be called over http or https.", f"It is {text[:80]!r}.")
    path = parts.path.rstrip("/")
    if parts.query or parts.fragment or not _PATH.fullmatch(path):
        # Not shown either: some keep their key in the query.
        raise _bad_url("It is more than a base.", "It has a query, a fragment or an unusual path.")
    return BaseUrl(scheme=parts.scheme, host=host, port=port or _PORTS[parts.scheme], path=path)


def check_key(key: str) -> None:
    """Hold that a key can go into a header. The message never shows it.

    Raises:
        BadField: It is too long, or has a space or a character that is not plain ASCII.
    """
    if len(key) > MAX_KEY_CHARACTERS or not _KEY.fullmatch(key):
        raise BadField(
            "The external server's key is none that can be sent.",
            evidence=f"It has {len(key):,} characters, of which each must be visible ASCII; at most "
            f"{MAX_KEY_CHARACTERS:,} are allowed.",
            fix="Look for a line break or a quotation mark that was copied with it.",
        )


def _bad_url(what: str, evidence: str) -> BadField:
    return BadField(
        f"The external server's base URL is not one. {what}",
        evidence=evidence,
        fix="Give it as OpenAI's clients take it, for example https://api.example.com/v1.",
    )
