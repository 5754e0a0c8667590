"""The part of a model hub that a download needs, on a loopback port: revision, list of files, files."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def serving(repository: str, commit: str, folder: Path) -> ThreadingHTTPServer:
    """A server that has one model, and says of all others that there are none."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = self.respond(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def respond(self, path: str) -> tuple[int, dict[str, str], bytes]:
            files = {file.name: file for file in folder.iterdir()}
            name = path.rpartition("/")[2]
            if path.startswith(f"/api/models/{repository}/tree/{commit}"):
                return 200, {}, json.dumps([listed(file) for file in files.values()]).encode()
            if path in (f"/api/models/{repository}/revision/main", f"/api/models/{repository}/revision/{commit}"):
                return 200, {}, json.dumps({"id": repository, "sha": commit}).encode()
            if path == f"/{repository}/resolve/{commit}/{name}" and name in files:
                content = files[name].read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                return 200, {"ETag": f'"{digest}"', "X-Repo-Commit": commit}, content
            return 404, {"X-Error-Code": "RepoNotFound"}, b""

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            return

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def listed(file: Path) -> dict[str, object]:
    return {"type": "file", "oid": "0" * 40, "size": file.stat().st_size, "path": file.name}
