"""A server on this machine that speaks the Hugging Face hub's protocol, as far as downloads need it."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server offers and how it misbehaves.

    Attributes:
        repos: Files by name, by ``models/owner/name`` or ``datasets/owner/name``.
        gated: Repositories whose terms have to be accepted.
        spoilt: Files that arrive with another content than their sum says.
        cuts: After how many bytes the connection is closed, once, by file.
        asked: Method, path and range of every request.
    """

    def __init__(self):
        self.repos, self.gated, self.spoilt, self.cuts, self.asked = {}, set(), set(), {}, []

    def add(self, kind, name, folder):
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        self.repos[f"{kind}/{name}"] = files


def is_large(name):
    """Weights and tables are kept apart, under their SHA-256; the rest is named as git does."""
    return name.endswith((".safetensors", ".parquet", ".bin"))


def sums(name, content):
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return git, hashlib.sha256(content).hexdigest() if is_large(name) else None


def tree(files, below, whole):
    """What lies below a folder: its files, and folders where not the whole of them is asked for."""
    found = {}
    for file, content in files.items():
        if not file.startswith(below):
            continue
        inner = file.removeprefix(below)
        if "/" in inner and not whole:
            folder = below + inner.partition("/")[0]
            found[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
            continue
        git, large = sums(file, content)
        lfs = {"lfs": {"oid": large, "size": len(content), "pointerSize": 134}} if large else {}
        found[file] = {"type": "file", "oid": git, "size": len(content), "path": file, **lfs}
    return list(found.values())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(body=True)

    def answer(self, body):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            kind, name, rest = parts[1], "/".join(parts[2:4]), parts[4:]
        else:
            kind = parts.pop(0) if parts[0] == "datasets" else "models"
            name, rest = "/".join(parts[:2]), parts[2:]
        files = hub.repos.get(f"{kind}/{name}")
        if files is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if f"{kind}/{name}" in hub.gated:
            return self.refuse(403, "GatedRepo", "Access is restricted")
        if path.startswith("/api/"):
            return self.describe(name, files, rest, body)
        return self.give("/".join(rest[2:]), files, body)

    def describe(self, name, files, rest, body):
        if rest[:1] == ["tree"]:
            found = tree(files, "".join(f"{part}/" for part in rest[2:]), "recursive=True" in self.path)
        else:
            siblings = [{"rfilename": file} for file in files]
            found = {
                "id": name,
                "sha": COMMIT,
                "private": False,
                "gated": False,
                "siblings": siblings,
                "tags": [],
            }
        self.send(200, json.dumps(found).encode(), body, {"Content-Type": "application/json"})

    def give(self, file, files, body):
        hub, content = self.server.hub, files.get(file)
        if content is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        git, large = sums(file, content)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{large or git}"', "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-ETag": f'"{large}"', "X-Linked-Size": str(len(content))}
        if file in hub.spoilt:
            content = bytes(value ^ 1 for value in content)
        start, asked = 0, self.headers.get("Range")
        if asked and body:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = hub.cuts.pop(file, None) if body else None
        self.send(206 if start else 200, content[start:], body, headers, cut)

    def refuse(self, status, code, text):
        self.send(status, b"", False, {"X-Error-Code": code, "X-Error-Message": text})

    def send(self, status, content, body, headers, cut=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True


@contextlib.contextmanager
def serving(hub):
    """Give the address of a server for this hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.hub = True, hub
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
