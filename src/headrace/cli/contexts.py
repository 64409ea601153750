"""Which server a command talks to, and with which key.

From the strongest: the options ``--url`` and ``--key``; ``HEADRACE_URL`` and ``HEADRACE_API_KEY``; the current context
that ``headrace login`` stored; the login file of a server of the same user on this machine. A stored key is only ever
sent to the address that it was stored with.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path

import msgspec
import platformdirs

from headrace.cli.paths import segment
from headrace.resources.errors import BadField, HeadraceError, NotLoggedIn, ServerUnreachable
from headrace.resources.layout import Layout, default_data_dir
from headrace.resources.names import DEFAULT_LOCATION, DEFAULT_PROJECT

_LOCAL = "the login file of the server on this machine"

WRITES_LOGIN_WITHIN_S = 15.0
"""From a server's first start in a data directory to its login file; a second or two where nothing else computes."""

_LOOK_EVERY_S = 0.05


class Context(msgspec.Struct, frozen=True):
    """One server as `headrace login` remembers it.

    Attributes:
        ca: The authorities that may vouch for it (PEM), instead of the system's; empty for those.
    """

    url: str
    key: str
    project: str = DEFAULT_PROJECT
    location: str = DEFAULT_LOCATION
    ca: str = ""


class ContextFile(msgspec.Struct):
    """The file of contexts."""

    current: str = ""
    contexts: dict[str, Context] = {}


class Wish(msgspec.Struct, frozen=True):
    """What the command line says about the server; empty where it says nothing."""

    url: str = ""
    key: str = ""
    context: str = ""
    project: str = ""
    location: str = ""
    ca_file: str = ""


class Login(msgspec.Struct, frozen=True):
    """The server to talk to.

    Attributes:
        origin: Where the address was taken from, for error messages.
        key_origin: Where the key was taken from, for errors about it; empty where nobody says.
        ca: The authorities that may vouch for it (PEM), instead of the system's; empty for those.
    """

    url: str
    key: str
    project: str
    location: str
    origin: str
    key_origin: str = ""
    ca: str = ""

    @property
    def scope(self) -> str:
        """``projects/P/locations/L``, as a part of a path."""
        return f"projects/{segment(self.project)}/locations/{segment(self.location)}"


class _LocalLogin(msgspec.Struct):
    url: str
    key: str


def contexts_path() -> Path:
    """The file of contexts: in ``$HEADRACE_CONFIG_DIR``, else in the user's configuration folder."""
    configured = os.environ.get("HEADRACE_CONFIG_DIR")
    return (Path(configured) if configured else Path(platformdirs.user_config_dir("headrace"))) / "contexts.json"


def load() -> ContextFile:
    """The stored contexts; none at all where there is no file.

    Raises:
        NotLoggedIn: The file cannot be read.
    """
    path = contexts_path()
    try:
        return msgspec.json.decode(path.read_bytes(), type=ContextFile)
    except FileNotFoundError:
        return ContextFile()
    except (OSError, msgspec.MsgspecError) as error:
        raise NotLoggedIn(
            f"The file of contexts {path} cannot be read.",
            evidence=str(error),
            fix=f"Remove it (`rm {path}`) and log in again: `headrace login URL`.",
        ) from error


def save(content: ContextFile) -> Path:
    """Store the contexts, whole or not at all, for their owner's eyes only (mode 0600)."""
    path = contexts_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=".contexts.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return path


def server_runs(layout: Layout) -> bool:
    """Whether a server holds the lock of its data directory now."""
    try:
        with layout.lock.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def local_context(data_dir: Path | None = None) -> Context | None:
    """What the running server of a data directory on this machine wrote down for its owner, if there is one.

    A server that is gone leaves its login file; somebody else may have its port by now, and is shown no key. One that
    starts for the first time is waited for.
    """
    layout = Layout(data_dir or default_data_dir())
    while server_runs(layout):
        try:
            found = msgspec.json.decode(layout.local_login.read_bytes(), type=_LocalLogin)
        except FileNotFoundError:
            if not _starts(layout):
                return None
            time.sleep(_LOOK_EVERY_S)
        except (OSError, msgspec.MsgspecError):
            return None
        else:
            return Context(url=found.url, key=found.key)
    return None


def _starts(layout: Layout) -> bool:
    """Whether the server that holds the lock wrote itself into it a moment ago."""
    try:
        return time.time() - layout.lock.stat().st_mtime < WRITES_LOGIN_WITHIN_S
    except OSError:
        return False


def local_login(data_dir: Path) -> Login:
    """How to talk to the server of a data directory on this machine.

    Raises:
        NotLoggedIn: It does not run, or has written no login file.
    """
    found = local_context(data_dir)
    if found is None:
        raise NotLoggedIn(
            f"There is no login for the server of {data_dir}.",
            evidence=f"It does not run, or {Layout(data_dir).local_login} cannot be read.",
            fix=f"Start it: `headrace serve --data-dir {data_dir}`; or name another server: `headrace login URL`.",
        )
    return Login(found.url.rstrip("/"), found.key, found.project, found.location, _LOCAL, _LOCAL)


def finds(url: str, data_dir: Path) -> bool:
    """Whether a command that says nothing about the server, besides its data directory, talks to the one at ``url``."""
    try:
        return _same(resolve(Wish(), key_needed=False, data_dir=data_dir).url, url)
    except HeadraceError:
        return False


def resolve(wish: Wish, *, key_needed: bool = True, data_dir: Path | None = None) -> Login:
    """The server that a command talks to.

    Args:
        wish: What the command line says.
        key_needed: Whether no key is an error.
        data_dir: That of the server on this machine; else the default one.

    Raises:
        NotLoggedIn: No address is known, or no key for it.
        BadField: The file of authorities that is named cannot be used.
        ServerUnreachable: The only one that is known is that of this machine, and it does not run.
    """
    stored = load()
    named = find(stored, wish.context) if wish.context else None
    candidates = _candidates(stored, named, local_context(data_dir))
    url, origin = _url(wish, named, candidates)
    known_as, known = next(((name, each) for name, each in candidates if _same(each.url, url)), ("", None))
    in_environment = "" if wish.context else os.environ.get("HEADRACE_API_KEY", "")
    keys = ((wish.key, "--key"), (in_environment, "HEADRACE_API_KEY"), (known.key if known else "", known_as))
    key, key_origin = next((each for each in keys if each[0]), ("", ""))
    if not key and key_needed:
        raise NotLoggedIn(
            f"There is no key for {url}.",
            evidence=f"The address comes from {origin}; no stored login has it.",
            fix=f"Log in with `headrace login {url}`, or set HEADRACE_API_KEY.",
        )
    ca_file = wish.ca_file or ("" if wish.context else os.environ.get("HEADRACE_CA_FILE", ""))
    return Login(
        url=url.rstrip("/"),
        key=key,
        project=wish.project or (known.project if known else DEFAULT_PROJECT),
        location=wish.location or (known.location if known else DEFAULT_LOCATION),
        origin=origin,
        key_origin=key_origin,
        ca=_authorities(ca_file) if ca_file else known.ca if known else "",
    )


def find(stored: ContextFile, name: str) -> Context:
    """The context of a name.

    Raises:
        NotLoggedIn: There is none.
    """
    if name not in stored.contexts:
        known = ", ".join(sorted(stored.contexts)) or "none"
        raise NotLoggedIn(
            f"There is no context {name!r}.",
            evidence=f"Known contexts: {known}.",
            fix=f"Make it: `headrace login URL --name {name}`.",
        )
    return stored.contexts[name]


def _candidates(stored: ContextFile, named: Context | None, local: Context | None) -> list[tuple[str, Context]]:
    """Every login that is known, with its origin, the strongest first."""
    found: list[tuple[str, Context]] = []
    if named is not None:
        found.append(("--context", named))
    if stored.current in stored.contexts:
        found.append((_called(stored.current), stored.contexts[stored.current]))
    if local is not None:
        found.append((_LOCAL, local))
    found += [(_called(name), context) for name, context in stored.contexts.items()]
    return found


def _called(name: str) -> str:
    return f"the login {name!r} in {contexts_path()}"


def _url(wish: Wish, named: Context | None, candidates: list[tuple[str, Context]]) -> tuple[str, str]:
    if wish.url:
        return _address(wish.url), "--url"
    if named is None and (url := os.environ.get("HEADRACE_URL")):
        return _address(url), "HEADRACE_URL"
    if candidates:
        origin, context = candidates[0]
        return context.url, origin
    if Layout(default_data_dir()).local_login.exists():
        raise ServerUnreachable(
            f"The server of {default_data_dir()} does not run.",
            evidence="It has left its login file, and nobody holds its lock. No other server is known.",
            fix="Start it with `headrace serve`, or log in to another: `headrace login URL`.",
        )
    raise NotLoggedIn(
        "No server is known.",
        evidence=f"No --url, no HEADRACE_URL, nothing in {contexts_path()}, no server in {default_data_dir()}.",
        fix="Start one with `headrace quickstart` or `headrace serve`, or log in to one: `headrace login URL`.",
    )


def _authorities(path: str) -> str:
    """The certificates in a file: its text is kept with a login, so that the file may go.

    Raises:
        BadField: There are none in it.
    """
    import ssl  # noqa: PLC0415  # only for a server with an authority of its own

    try:
        text = Path(path).expanduser().read_text(encoding="ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (OSError, ValueError) as error:  # `ssl.SSLError` and `UnicodeDecodeError` among them
        raise BadField(
            f"The file of authorities {path} cannot be used.",
            evidence=f"{error}.",
            fix="Name a PEM file, as `headrace ca export FILE` writes it on the server's machine.",
        ) from error
    return text


def _address(text: str) -> str:
    """``HOST:PORT`` is taken for plain HTTP."""
    return (text if "://" in text else f"http://{text}").rstrip("/")


def _same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")
