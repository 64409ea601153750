"""Where a plain HTTP client finds an object, and by what right: as its store's driver would ask, without the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from fsspec import AbstractFileSystem
from fsspec.asyn import sync

VALID_S = 3600
"""How long the right is asked for; it is used for a much shorter time."""

_ASKING_TIMEOUT_S = 60.0
_AZURE_SCOPE = "https://storage.azure.com/.default"
_AZURE_VERSION = "2021-12-02"
"""Of Azure's protocol: a request with a token names one."""


class Located(NamedTuple):
    """An object's address for GET.

    Attributes:
        url: It may itself hold the right to read, so it goes into no log and no message.
        headers: To be sent along; they may hold a token.
    """

    url: str
    headers: Mapping[str, str]

    def moved(self, location: str) -> Located:
        """Where a redirect leads; no header goes to another host."""
        url = urljoin(self.url, location)
        return Located(url, self.headers if urlsplit(url)[:2] == urlsplit(self.url)[:2] else {})


def locate(filesystem: AbstractFileSystem, path: str) -> Located | None:
    """An object of a driver's store; None where only the driver can ask for it.

    Raises:
        Exception: Whatever the driver raises: it has no credentials, or cannot renew them.
    """
    protocol = filesystem.protocol
    for name in (protocol,) if isinstance(protocol, str) else protocol:
        if name in _WAYS:
            return _WAYS[name](filesystem, path)
    return None


def _s3(filesystem: Any, path: str) -> Located:
    return Located(sync(filesystem.loop, filesystem._url, path, VALID_S, timeout=_ASKING_TIMEOUT_S), {})


def _gcs(filesystem: Any, path: str) -> Located | None:
    if filesystem.requester_pays:
        return None
    headers: dict[str, str] = {}
    filesystem.credentials.apply(headers)  # renews the token where it is old
    return Located(filesystem.url(path), headers)


def _azure(filesystem: Any, path: str) -> Located | None:
    if filesystem.account_key or "accountkey=" in (filesystem.connection_string or "").lower():
        return Located(sync(filesystem.loop, filesystem._url, path, VALID_S, timeout=_ASKING_TIMEOUT_S), {})
    container, blob, _ = filesystem.split_path(path)
    url: str = filesystem.service_client.get_blob_client(container, blob).url  # with the SAS token, where that is it
    if filesystem.credential is None:
        return Located(url, {})
    if not hasattr(filesystem.credential, "get_token"):
        return None
    token = sync(filesystem.loop, filesystem.credential.get_token, _AZURE_SCOPE, timeout=_ASKING_TIMEOUT_S)
    return Located(url, {"Authorization": f"Bearer {token.token}", "x-ms-version": _AZURE_VERSION})


def _hub(filesystem: Any, path: str) -> Located:
    return Located(filesystem.url(path), filesystem._api._build_hf_headers())


_WAYS: Mapping[str, Callable[[Any, str], Located | None]] = {"s3": _s3, "gs": _gcs, "az": _azure, "hf": _hub}
"""By the scheme that a driver says it is for."""
