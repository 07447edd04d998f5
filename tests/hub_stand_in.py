"""A hub on this machine: enough of the Hugging Face hub's API for `snapshot_download`, `load_dataset` and commits.

    with HubStandIn() as hub:
        hub.add("models", "someone/tiny", {"config.json": b"{}"})
        subprocess.run(command, env=os.environ | {"HF_ENDPOINT": hub.url})

Spoken: the description of a repository, its tree and paths-info, and its files by GET and HEAD. For what is not there,
the answer is what the real hub tells someone who is logged in: 404 with RepoNotFound or EntryNotFound.

Who writes (creates a repository, commits) needs a token: 401 without the right one, 403 if `refuses` says so. Files
named .safetensors go through LFS, as on the hub; the others are in the commit itself.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]

API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<rest>.+)")
ACTION = re.compile(r"(?P<id>.+?)(/(?P<verb>revision|tree|paths-info)/(?P<revision>[^/]+)(/(?P<path>.*))?)?")
COMMIT = re.compile(r"/api/models/(?P<id>.+?)/(?P<verb>preupload|commit)/main")
LFS = re.compile(r"/(?P<id>.+?)\.git/info/lfs/objects/batch")
BLOB = re.compile(r"/lfs/(?P<oid>[0-9a-f]{64})")
FILE = re.compile(r"/(?P<datasets>datasets/)?(?P<id>.+?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class HubStandIn:
    """The server and the repositories in it; `requests` has the lines of what was asked.

    Attributes:
        repositories: kind and name → files.
        private: names of the repositories that only their owners may read.
        refuses: the token may not write.

    Args:
        port: 0 is any free one.
    """

    token = "hf_right"
    owner = "someone"

    def __init__(self, port: int = 0) -> None:
        self.repositories: dict[tuple[str, str], Files] = {}
        self.private: set[str] = set()
        self.refuses = False
        self.blobs: Files = {}
        self.requests: list[str] = []
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def add(self, kind: str, name: str, files: Files) -> None:
        """Adds a repository of `models` or `datasets`."""
        self.repositories[kind, name] = files

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes the hub down: what asks it afterwards is refused."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(head=False)

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_POST(self) -> None:
        self._answer(head=False)

    def do_PUT(self) -> None:
        self._answer(head=False)

    def log_message(self, format: str, *args: Any) -> None:
        self.hub.requests.append(format % args)

    def _answer(self, head: bool) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        if found := BLOB.fullmatch(path):  # its address is its permission, as in the hub's storage
            self.hub.blobs[found["oid"]] = body
            self._json({})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "/api/repos/create" or COMMIT.fullmatch(path) or LFS.fullmatch(path):
            self._write(path, body)
        elif found := API.fullmatch(path):
            self._describe(found["kind"], ACTION.fullmatch(found["rest"]), body)
        elif found := FILE.fullmatch(path):
            self._file("datasets" if found["datasets"] else "models", found["id"], found["path"], head)
        else:
            self._send(404, b"{}", {"X-Error-Code": "NotFound"})

    def _body(self) -> bytes:
        """Returns what came with the request; large files come in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _write(self, path: str, body: bytes) -> None:
        """Answers who creates a repository or commits to one."""
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif self.hub.refuses:
            self._send(403, b"", {"X-Error-Message": "You don't have the rights to write here"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := LFS.fullmatch(path):
            self._lfs(json.loads(body)["objects"])
        elif (found := COMMIT.fullmatch(path)) and ("models", found["id"]) in self.hub.repositories:
            files = self.hub.repositories["models", found["id"]]
            if found["verb"] == "preupload":
                self._json({"files": [_mode(one["path"]) for one in json.loads(body)["files"]]})
            else:
                self._commit(found["id"], files, [json.loads(line) for line in body.splitlines()])
        else:
            self._no_repository()

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization'] or self.hub.owner}/{asked['name']}"
        there = ("models", name) in self.hub.repositories
        if not there:
            self.hub.add("models", name, {})
            if asked.get("visibility") == "private" or asked.get("private"):
                self.hub.private.add(name)
        answer = json.dumps({"url": f"{self.hub.url}/{name}", "name": name}).encode()
        self._send(409 if there else 200, answer, {"Content-Type": "application/json"})

    def _lfs(self, objects: list[dict[str, Any]]) -> None:
        """Says where each large file goes."""
        where = {"header": {}}
        uploads = [
            one | {"actions": {"upload": where | {"href": f"{self.hub.url}/lfs/{one['oid']}"}}} for one in objects
        ]
        self._json({"transfer": "basic", "objects": uploads})

    def _commit(self, name: str, files: Files, operations: list[dict[str, Any]]) -> None:
        """Takes the files of a commit, all or none."""
        new: Files = {}
        for one in operations:
            if one["key"] == "file":
                new[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            elif one["key"] == "lfsFile":
                new[one["value"]["path"]] = self.hub.blobs[one["value"]["oid"]]
        files |= new
        oid = _commit(files)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def _describe(self, kind: str, asked: re.Match[str] | None, body: bytes) -> None:
        files = self.hub.repositories.get((kind, asked["id"])) if asked else None
        if asked is None or files is None:
            self._no_repository()
        elif asked["verb"] == "tree":
            self._json(_entries(files, f"{asked['path']}/" if asked["path"] else ""))
        elif asked["verb"] == "paths-info":
            wanted = json.loads(body)["paths"]
            self._json([entry for entry in _entries(files, "") if entry["path"] in wanted])
        else:
            siblings = [{"rfilename": path} for path in files]
            private = asked["id"] in self.hub.private
            self._json({"id": asked["id"], "sha": _commit(files), "siblings": siblings, "tags": [], "private": private})

    def _file(self, kind: str, name: str, path: str, head: bool) -> None:
        files = self.hub.repositories.get((kind, name))
        if files is None:
            self._no_repository()
        elif path not in files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": _commit(files)})
        else:
            etag = {"ETag": f'"{_blob(files[path])}"', "X-Repo-Commit": _commit(files), "Accept-Ranges": "bytes"}
            first = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if first is None:
                self._send(200, files[path], etag, head)
                return
            start, end = int(first[1]), int(first[2] or len(files[path]) - 1)
            etag["Content-Range"] = f"bytes {start}-{end}/{len(files[path])}"
            self._send(206, files[path][start : end + 1], etag, head)

    def _no_repository(self) -> None:
        self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], head: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head and self.command != "HEAD":
            self.wfile.write(body)


def _mode(path: str) -> dict[str, Any]:
    """Says how a file of this name is to be sent."""
    return {"path": path, "uploadMode": "lfs" if path.endswith(".safetensors") else "regular", "shouldIgnore": False}


def _entries(files: Files, below: str) -> list[dict[str, Any]]:
    """All files and folders below a folder, as the hub's tree lists them."""
    found = {path: files[path] for path in files if path.startswith(below)}
    folders = {path.rpartition("/")[0] for path in found if "/" in path.removeprefix(below)}
    listed: list[dict[str, Any]] = [
        {"type": "file", "path": path, "size": len(content), "oid": _blob(content)} for path, content in found.items()
    ]
    return listed + [{"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in sorted(folders)]


def _blob(content: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _commit(files: Files) -> str:
    """A name for this state of a repository, in the form of a commit's."""
    listing = "".join(f"{path} {_blob(content)}\n" for path, content in sorted(files.items()))
    return hashlib.sha1(listing.encode()).hexdigest()
