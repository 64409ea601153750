"""From an address to the files at it: which schemes there are, and what each needs installed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from headrace.resources.errors import BadField, SchemeNotSupported
from headrace.storage.artifacts import Artifacts
from headrace.storage.local import LocalArtifacts

DRIVERS = {
    "gs": "pip install 'headrace[gcs]'",
    "s3": "pip install 'headrace[s3]'",
    "az": "pip install 'headrace[azure]'",
    "hf": "pip install huggingface_hub",
}
"""The remote schemes, and the command that brings each one's driver. No other scheme reaches fsspec: ``http://`` or a
chain such as ``zip::`` would make the server fetch whatever a caller names."""


def open_artifacts(uri: str) -> Artifacts:
    """The files at an address: ``file:///dir``, ``/dir``, or one of `DRIVERS`' schemes.

    Raises:
        ArtifactsNotFound: Nothing is there, or it cannot be read.
        ArtifactsRefused: A file in it leads outside.
        BadField: The address is a relative path, or names another host.
        SchemeNotSupported: No driver for its scheme is installed, or there is none.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return LocalArtifacts(uri, _absolute(uri, uri))
    scheme = scheme.lower()
    if scheme == "file":
        return LocalArtifacts(uri, _path_of_file_uri(uri))
    if scheme not in DRIVERS:
        raise SchemeNotSupported(
            f"Weights cannot be read from {scheme}:// addresses.",
            evidence=uri,
            fix=f"Use an absolute path, file://, {', '.join(f'{name}://' for name in DRIVERS)}.",
        )
    if not rest.strip("/"):
        raise BadField(f"{uri} names no bucket or folder.", fix=f"Give {scheme}://BUCKET/FOLDER.")
    try:
        import fsspec  # noqa: PLC0415  # a local folder is looked at without it, in half the time

        from headrace.storage.remote import RemoteArtifacts  # noqa: PLC0415  # ditto

        # A private instance: listings kept by a shared one would hide what changed at the source.
        filesystem = fsspec.filesystem(scheme, skip_instance_cache=True)
    except ImportError as error:
        raise SchemeNotSupported(
            f"No driver for {scheme}:// addresses is installed.", evidence=str(error), fix=DRIVERS[scheme]
        ) from error
    return RemoteArtifacts(uri, filesystem, rest)


def _path_of_file_uri(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in {"", "localhost"}:
        raise BadField(
            f"{uri} names the host {parts.netloc!r}.",
            evidence="A file:// address is on this machine; its path begins after the third slash.",
            fix=f"Give file:///{parts.netloc}{parts.path} if that is the path.",
        )
    # "?" and "#" are ordinary letters in a file's name, and urlsplit takes them for separators.
    return _absolute(unquote(uri[len("file://") + len(parts.netloc) :]), uri)


def _absolute(path: str, address: str) -> Path:
    if "\0" in path:
        raise BadField("The path of the weights holds a NUL character.")
    if not path.startswith("/"):
        raise BadField(
            f"{address!r} is not an absolute path.",
            evidence="A relative path would be looked up where the server was started, not where you are.",
            fix="Give the whole path, beginning with a slash.",
        )
    return Path(path)
