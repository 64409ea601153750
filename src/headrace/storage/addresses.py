"""From an address to the files at it: which schemes there are, and what each needs installed."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from headrace.resources.errors import BadField, SchemeNotSupported
from headrace.storage.artifacts import Artifacts
from headrace.storage.credentials import driver_options
from headrace.storage.local import LocalArtifacts, existing_folder

DRIVERS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}
"""The remote schemes, and the package that has each one's driver. No other scheme reaches fsspec: ``http://`` or a
chain such as ``zip::`` would make the server fetch whatever a caller names."""


def _install(package: str) -> str:
    """The command that brings a package to the environment that this process runs in, which no shell's `pip` knows."""
    command = f"{shlex.quote(sys.executable)} -m pip install {package}"
    return f"`{command}`, and if a server runs, start it again: `headrace serve`."


def _options(scheme: str, rest: str) -> dict[str, Any]:
    """Of a driver, from this process's environment as it is now."""
    if scheme == "s3":  # ranges are asked for again by `remote`; with botocore's own five attempts that would be 125
        config: dict[str, Any] = {"retries": {"total_max_attempts": 2}}
        bucket = rest.partition("/")[0]
        if not bucket.startswith("arn:") and not bucket.endswith("--x-s3"):  # those have signatures of their own
            config["signature_version"] = "s3v4"  # addresses would be signed in the old way, which few regions accept
        return {"config_kwargs": config}
    if scheme == "hf":  # the driver would read it only once, when it is imported
        return {"endpoint": os.environ.get("HF_ENDPOINT") or None}
    return {}


def open_artifacts(uri: str, credentials: Mapping[str, str] | None = None) -> Artifacts:
    """The files at an address: ``file:///dir``, ``/dir``, or one of `DRIVERS`' schemes.

    Args:
        uri: The address.
        credentials: Of a project (`Credentials.options`); without any this process's own environment counts.

    Raises:
        ArtifactsNotFound: Nothing is there, or it cannot be read.
        ArtifactsRefused: A file in it leads outside.
        BadField: The address is a relative path, or names another host.
        SchemeNotSupported: No driver for its scheme is installed, or there is none.
    """
    folder = folder_of(uri)
    if folder is not None:
        return LocalArtifacts(uri, folder)
    scheme, rest = _driven(uri)
    import fsspec  # noqa: PLC0415  # a local folder is looked at without it, in half the time

    from headrace.storage.remote import RemoteArtifacts, translated  # noqa: PLC0415  # ditto

    options = _options(scheme, rest) | driver_options(scheme, credentials or {})
    with translated(uri):  # some drivers look for credentials at once
        # A private instance: listings kept by a shared one would hide what changed at the source.
        filesystem = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    return RemoteArtifacts(uri, filesystem, rest)


def require_openable(uri: str) -> None:
    """Hold what can be known of an address without asking anybody: no object store is called.

    Raises:
        ArtifactsNotFound: It is a path of this machine, and there is no such folder.
        BadField, SchemeNotSupported: As in `open_artifacts`.
    """
    folder = folder_of(uri)
    if folder is not None:
        existing_folder(uri, folder)
    else:
        _driven(uri)


def folder_of(uri: str) -> Path | None:
    """The path on this machine that an address names; None for another machine's.

    Raises:
        BadField: It is none: relative, of another host, or with a NUL.
    """
    scheme, separator, _rest = uri.partition("://")
    if not separator:
        return _absolute(uri, uri)
    return path_of_file_uri(uri) if scheme.lower() == "file" else None


_SECRET = re.compile(r"[^@]*:[^@]*@")


def _driven(uri: str) -> tuple[str, str]:
    """Scheme and rest of an address whose driver is installed."""
    scheme, _separator, rest = uri.partition("://")
    scheme = scheme.lower()
    if scheme not in DRIVERS:
        raise SchemeNotSupported(
            f"Weights cannot be read from {scheme}:// addresses.",
            evidence=uri,
            fix=f"Use an absolute path, file://, {', '.join(f'{name}://' for name in DRIVERS)}.",
        )
    bucket = rest.partition("/")[0]
    if _SECRET.match(bucket):
        raise BadField(
            f"A {scheme}:// address holds no password.",
            evidence="What stands before the @ is not shown here: whoever sees the model would see it.",
            fix="Give credentials by the environment, or those of the project: docs/storage.md.",
        )
    if not bucket:
        raise BadField(f"{uri} names no bucket or folder.", fix=f"Give {scheme}://BUCKET/FOLDER.")
    try:
        import fsspec  # noqa: PLC0415  # see `open_artifacts`

        if scheme == "gs" and os.environ.get("STORAGE_EMULATOR_HOST"):
            # Else gcsfs asks an emulator over gRPC what kind of bucket it is, and waits a minute for no answer.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise SchemeNotSupported(
            f"No driver for {scheme}:// addresses is installed.", evidence=str(error), fix=_install(DRIVERS[scheme])
        ) from error
    return scheme, rest


def path_of_file_uri(uri: str) -> Path:
    """The path that a ``file://`` address names.

    Raises:
        BadField: It names another host, or no absolute path.
    """
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
