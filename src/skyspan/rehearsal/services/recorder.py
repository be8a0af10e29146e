"""A stand-in HTTP service: answers every request with 200 and keeps what it was sent, for `GET /requests`.

Standard library only and run by path, inside a stand-in's network namespace.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

KEPT = 1000
"""How many requests are remembered."""


class Recorder(ThreadingHTTPServer):
    """The service, with what it has heard."""

    def __init__(self, port: int, host: str = "0.0.0.0") -> None:
        super().__init__((host, port), Handler)
        self.heard: list[dict[str, Any]] = []

    def server_bind(self) -> None:
        """Without the look-up of our own name, which waits for a name server that is not there."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "recorder", self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Recorder

    def answer(self) -> None:
        """Keep it and say 200, or list what was kept."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        if self.command == "GET" and self.path == "/requests":
            said: Any = self.server.heard
        else:
            self.server.heard.append({"method": self.command, "path": self.path, "body": body})
            del self.server.heard[:-KEPT]
            said = {"ok": True, "id": len(self.server.heard)}
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # Names that http.server looks for.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: what was asked is in the list."""


if __name__ == "__main__":
    service = Recorder(int(sys.argv[1]))
    os.write(1, b"listening\n")
    service.serve_forever()
