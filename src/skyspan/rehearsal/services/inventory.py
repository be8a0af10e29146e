"""A stand-in inventory: a REST service with tables of rows, made as NetBox's API is, that begins empty.

`POST /api/…/TABLE/` adds a row and answers 201 with its `id`; a second row of a `name` is refused with 400. `GET` of
the table lists it (`count`, `results`), narrowed down by what the query asks for (`?name=r1`). `GET`, `PUT`, `PATCH`
and `DELETE` of `/api/…/TABLE/ID/` are about a row. `GET /` tells everything. (NetBox: docs/integrations/rest-api.md.)
Standard library only and run by path, inside a stand-in's network namespace.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Lock
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

Row: TypeAlias = dict[str, Any]
Said: TypeAlias = tuple[int, Any]


class Tables:
    """The rows by table and id; what is asked is answered with a status and a document."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[int, Row]] = {}
        self._last = 0
        self._lock = Lock()

    def answer(self, method: str, target: str, body: bytes) -> Said:
        """Do what one request asks for."""
        asked = urlsplit(target)
        place = asked.path.rstrip("/")
        try:
            given = json.loads(body) if body else {}
        except ValueError:
            return 400, {"detail": "JSON parse error"}
        table, _, last = place.rpartition("/")
        with self._lock:
            if not place:
                everything = {name: list(rows.values()) for name, rows in self._rows.items() if rows}
                return (200, everything) if method == "GET" else (405, _refusal(method))
            if not isinstance(given, dict):
                return 400, {"detail": "one row at a time"}
            if last.isdecimal():
                return self._row(method, table, int(last), given)
            return self._table(method, place, given, dict(parse_qsl(asked.query)))

    def _table(self, method: str, table: str, given: Row, query: dict[str, str]) -> Said:
        rows = self._rows.setdefault(table, {})
        if method == "GET":
            found = [row for row in rows.values() if all(_text(row.get(key)) == text for key, text in query.items())]
            return 200, {"count": len(found), "next": None, "previous": None, "results": found}
        if method != "POST":
            return 405, _refusal(method)
        if _taken(rows, given, None):
            return 400, {"name": [f"there is a {given['name']} already"]}
        self._last += 1
        rows[self._last] = {**given, "id": self._last, "url": f"{table}/{self._last}/"}
        return 201, rows[self._last]

    def _row(self, method: str, table: str, number: int, given: Row) -> Said:
        rows = self._rows.setdefault(table, {})
        if number not in rows:
            return 404, {"detail": "Not found."}
        if method in ("PUT", "PATCH"):
            if _taken(rows, given, number):
                return 400, {"name": [f"there is a {given['name']} already"]}
            kept = rows[number] if method == "PATCH" else {}
            rows[number] = {**kept, **given, "id": number, "url": f"{table}/{number}/"}
        elif method == "DELETE":
            del rows[number]
            return 204, None
        elif method != "GET":
            return 405, _refusal(method)
        return 200, rows[number]


def _taken(rows: dict[int, Row], given: Row, own: int | None) -> bool:
    name = given.get("name")
    return name is not None and any(row.get("name") == name for number, row in rows.items() if number != own)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _refusal(method: str) -> Row:
    return {"detail": f'Method "{method}" not allowed.'}


class Inventory(ThreadingHTTPServer):
    """The service, with what it was told."""

    def __init__(self, port: int, host: str = "0.0.0.0") -> None:
        super().__init__((host, port), Handler)
        self.tables = Tables()

    def server_bind(self) -> None:
        """Without the look-up of our own name, which waits for a name server that is not there."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "inventory", self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Inventory

    def answer(self) -> None:
        """Let the tables answer it."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, said = self.server.tables.answer(self.command, self.path, body)
        data = b"" if said is None else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # Names that http.server looks for.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: what it was told is in the tables."""


if __name__ == "__main__":
    service = Inventory(int(sys.argv[1]))
    os.write(1, b"listening\n")
    service.serve_forever()
