"""The stand-in inventory: rows by table, found by what they hold."""

from __future__ import annotations

import json
from typing import Any

from skyspan.rehearsal.services.inventory import Tables

DEVICES = "/api/dcim/devices/"


def ask(tables: Tables, method: str, target: str, document: Any = None) -> tuple[int, Any]:
    return tables.answer(method, target, b"" if document is None else json.dumps(document).encode())


def test_a_row_is_added_found_changed_and_removed() -> None:
    tables = Tables()
    status, row = ask(tables, "POST", DEVICES, {"name": "r1", "site": 3})
    assert (status, row) == (201, {"name": "r1", "site": 3, "id": 1, "url": f"{DEVICES}1/"})
    assert ask(tables, "GET", DEVICES + "?name=r1&site=3")[1]["results"] == [row]
    assert ask(tables, "GET", DEVICES + "?name=r2")[1]["count"] == 0
    assert ask(tables, "PATCH", DEVICES + "1/", {"site": 4}) == (200, row | {"site": 4})
    assert ask(tables, "PUT", DEVICES + "1/", {"name": "r9"})[1] == {"name": "r9", "id": 1, "url": f"{DEVICES}1/"}
    assert ask(tables, "GET", "/") == (200, {DEVICES.rstrip("/"): [ask(tables, "GET", DEVICES + "1/")[1]]})
    assert ask(tables, "DELETE", DEVICES + "1/") == (204, None)
    assert ask(tables, "GET", DEVICES + "1/")[0] == 404
    assert ask(tables, "GET", "/") == (200, {})


def test_a_name_is_given_once_in_a_table_and_ids_never_again() -> None:
    tables = Tables()
    ask(tables, "POST", DEVICES, {"name": "r1"})
    assert ask(tables, "POST", DEVICES, {"name": "r1"}) == (400, {"name": ["there is a r1 already"]})
    assert ask(tables, "POST", "/api/dcim/sites/", {"name": "r1"})[0] == 201
    assert ask(tables, "POST", DEVICES, {"name": "r2"})[1]["id"] == 3
    assert ask(tables, "PATCH", DEVICES + "3/", {"name": "r1"})[0] == 400
    assert ask(tables, "PATCH", DEVICES + "3/", {"name": "r2"})[0] == 200


def test_what_means_nothing_is_refused() -> None:
    tables = Tables()
    assert ask(tables, "DELETE", DEVICES)[0] == 405
    assert ask(tables, "POST", DEVICES, [1])[0] == 400
    assert tables.answer("POST", DEVICES, b"{")[0] == 400
    assert ask(tables, "DELETE", "/")[0] == 405
