"""Credentials of projects for object stores: in a file of the data directory, for this user's eyes only.

They go from the file to a store's driver and nowhere else: no message between processes, no answer of an API and no row
has them, only the name of the project. A backup of the database does not contain them either.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headrace.resources.errors import BadField, DataDirUnusable
from headrace.resources.files import write_private
from headrace.resources.names import DEFAULT_LOCATION, Scope

_Kept = dict[str, dict[str, dict[str, str]]]
"""Values by project, scheme or single address, and name."""


class _Names(NamedTuple):
    """What a scheme's credentials consist of: the vendors' own names, and the driver's option for each."""

    needed: Mapping[str, str]
    also: Mapping[str, str]

    def option(self, name: str) -> str:
        """The driver's."""
        return self.needed.get(name) or self.also[name]


NAMES: Mapping[str, _Names] = {
    "s3": _Names(
        {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
        {"AWS_SESSION_TOKEN": "token", "AWS_ENDPOINT_URL": "endpoint_url"},
    ),
    "gs": _Names({"GOOGLE_APPLICATION_CREDENTIALS": "token"}, {"STORAGE_EMULATOR_HOST": "endpoint_url"}),
    # Its parts alone would be mixed with a connection string of the server's own environment, which comes first.
    "az": _Names({"AZURE_STORAGE_CONNECTION_STRING": "connection_string"}, {}),
    "hf": _Names({"HF_TOKEN": "token"}, {"HF_ENDPOINT": "endpoint"}),
}
"""By scheme. All that are needed have to be given: else the rest would be the server's own."""


class Credentials:
    """The credentials of all projects of one installation.

    Args:
        file: Where they are; made with mode 0600.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def options(self, project: str, uri: str) -> dict[str, str]:
        """What the driver of an address is to be given for a project; empty: the server's own environment counts.

        Raises:
            DataDirUnusable: The file cannot be read: nothing is tried with the server's own credentials instead.
        """
        scheme = uri.partition("://")[0].lower()
        names = NAMES.get(scheme)
        kept = self._read().get(project, {}) if names else {}
        values = kept.get(scheme, {}) | kept.get(uri, {})
        return {names.option(name): value for name, value in values.items()} if names else {}

    def set(self, project: str, scheme: str, values: Mapping[str, str]) -> None:
        """Keep a project's credentials for a scheme, in place of those that it had.

        Raises:
            BadField: There is no such scheme, a name is unknown, or one that is needed is missing or empty.
            BadName: No project can have that name, so that nobody would ever get them.
        """
        Scope(project, DEFAULT_LOCATION)  # whose names are checked when it is made
        if scheme not in NAMES:
            raise BadField(f"{scheme!r} is no scheme with credentials.", fix=f"Use one of {', '.join(NAMES)}.")
        names = NAMES[scheme]
        unknown = sorted(values.keys() - {*names.needed, *names.also})
        missing = [name for name in names.needed if not values.get(name)]
        if unknown or missing:
            raise BadField(
                f"Credentials for {scheme}:// take other names.",
                evidence=" ".join(
                    f"{what}: {', '.join(which)}."
                    for what, which in (("Unknown", unknown), ("Missing", missing))
                    if which
                ),
                fix=f"Needed: {', '.join(names.needed)}. Possible: {', '.join(names.also) or 'nothing else'}.",
            )
        with self._changing() as kept:
            kept.setdefault(project, {})[scheme] = dict(values)

    def set_for_address(self, project: str, uri: str, values: Mapping[str, str]) -> None:
        """Keep what one address is opened with, over what the project has for its scheme."""
        with self._changing() as kept:
            kept.setdefault(project, {})[uri] = dict(values)

    def delete(self, project: str, scheme: str) -> bool:
        """Forget a project's credentials for a scheme; whether there were any."""
        with self._changing() as kept:
            found = kept.get(project, {}).pop(scheme, None) is not None
            if found and not kept[project]:
                del kept[project]
        return found

    def list(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Project, scheme (or single address) and names of what is kept; never a value."""
        return sorted(
            (project, scheme, tuple(sorted(values)))
            for project, schemes in self._read().items()
            for scheme, values in schemes.items()
        )

    def _read(self) -> _Kept:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:  # the decoder's words could hold a value
            raise DataDirUnusable(
                f"The credentials in {self._file} cannot be read.",
                evidence=type(error).__name__,
                fix="Make it readable, or remove it and set the credentials again.",
            ) from None

    @contextmanager
    def _changing(self) -> Iterator[_Kept]:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._file.with_name(f".{self._file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = self._read()
            yield kept
            write_private(self._file, msgspec.json.encode(kept))
        finally:
            os.close(lock)


def driver_options(scheme: str, given: Mapping[str, str]) -> dict[str, Any]:
    """A project's options in the form that the scheme's driver takes.

    Raises:
        BadField: A value is not what its name says.
    """
    options: dict[str, Any] = dict(given)
    if scheme == "gs" and "token" in options:
        try:
            options["token"] = msgspec.json.decode(options["token"], type=dict[str, Any])
        except msgspec.MsgspecError:
            raise BadField("A project's GOOGLE_APPLICATION_CREDENTIALS are not the JSON of a key file.") from None
    return options
