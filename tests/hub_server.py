"""A server that speaks the part of the Hugging Face Hub's API that reading a model needs.

Small files are answered where they are asked for; large ones, as the Hub does, by a redirect to a signed address
elsewhere. Everything can be asked for in ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE_BYTES = 1 << 20
"""From this size on a file is kept in large-file storage, and known by its SHA-256."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?P<rest>/.*)?$")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)$")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


class Hub(ThreadingHTTPServer):
    """Serves every folder ``ROOT/OWNER/NAME`` as a model of that name.

    Args:
        root: The folder.
        token: What private models (whose name begins with ``private``) are shown for.
    """

    daemon_threads = True

    def __init__(self, root: Path, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.token = token
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A list, a description, or a file."""
        self._answer()

    def do_HEAD(self) -> None:
        """What a GET says in its head."""
        self._answer()

    def do_POST(self) -> None:
        """Some paths' descriptions."""
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path, dict(self.headers)))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.startswith("/large/"):
            return self._file(self.server.root / path.removeprefix("/large/"), {})
        api, resolve = _API.match(path), _RESOLVE.match(path)
        found = api or resolve
        folder = self.server.root / found["repo"] if found else None
        if folder is None or not folder.is_dir() or not self._allowed(folder):
            return self._json(404 if self._token() else 401, {"error": "Repository not found"}, code="RepoNotFound")
        if resolve:
            return self._resolve(folder, resolve["path"])
        return self._api(folder, (api and api["rest"]) or "", body)

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _allowed(self, folder: Path) -> bool:
        return not folder.name.startswith("private") or self._token() == self.server.token

    def _api(self, folder: Path, rest: str, body: bytes) -> None:
        if rest.startswith("/tree/"):
            return self._json(200, [_entry(folder, path) for path in _files(folder)])
        if rest.startswith("/paths-info/"):
            wanted = set(json.loads(body)["paths"])
            return self._json(200, [_entry(folder, path) for path in _files(folder) if _name(folder, path) in wanted])
        siblings = [{"rfilename": _name(folder, path)} for path in _files(folder)]
        name = f"{folder.parent.name}/{folder.name}"
        return self._json(200, {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": []})

    def _resolve(self, folder: Path, name: str) -> None:
        path = folder / name
        if not path.is_file():
            return self._json(404, {"error": "Entry not found"}, code="EntryNotFound")
        entry = _entry(folder, path)
        lfs = entry.get("lfs")
        tag = f'"{lfs["oid"] if lfs else entry["oid"]}"'
        head = {"ETag": tag, "X-Repo-Commit": COMMIT, "X-Linked-Etag": tag, "X-Linked-Size": str(entry["size"])}
        if lfs is None:
            return self._file(path, head)
        self.send_response(302)
        # By the name that it was asked by: a proxy before it stays between.
        location = f"http://{self.headers['Host']}/large/{path.relative_to(self.server.root)}?signature=of-the-hub"
        for key, value in (head | {"Location": location, "Content-Length": "0"}).items():
            self.send_header(key, value)
        self.end_headers()
        return None

    def _file(self, path: Path, head: Mapping[str, str]) -> None:
        size = path.stat().st_size
        begin, end, status = 0, size - 1, 200
        if asked := _RANGE.match(self.headers.get("Range", "")):
            begin, end, status = int(asked[1]), min(size - 1, int(asked[2] or size - 1)), 206
        if begin > end and size:
            return self._json(416, {"error": "No such range"})
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{end}/{size}")
        length = max(0, end - begin + 1)
        for key, value in (dict(head) | {"Accept-Ranges": "bytes", "Content-Length": str(length)}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            with path.open("rb") as file:
                file.seek(begin)
                self.wfile.write(file.read(length))
        return None

    def _json(self, status: int, value: Any, *, code: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


@cache
def _entry(folder: Path, path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"type": "file", "oid": oid, "size": len(content), "path": _name(folder, path)}
    if len(content) >= LARGE_BYTES:
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return entry


if __name__ == "__main__":
    hub = Hub(Path(sys.argv[1]))
    print(hub.url, flush=True)
    hub.serve_forever()
