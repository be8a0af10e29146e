"""What a stage with `each` is made of: a request for every item, with the item put into it (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from skyspan.model.secret import Secret
from skyspan.model.value import Value, revealed, secrets_in, transform

_PLACE = re.compile(r"\{(?:(key)|each((?:\.[A-Za-z0-9_-]+)*))\}")
_USUAL_KEYS = ("name", "id")
_WITH_ADDRESS = ("check", "destroy", "find", "update")
_AS_GIVEN = ("outputs", "verify", "timeout", "retries")


def items_of(each: list[Value] | dict[str, Value], key: str) -> dict[str, Value]:
    """The items by what tells them apart: the keys of a map, else what is found at `key` in each, or the usual.

    Raises ValueError for items that cannot be told apart.
    """
    if isinstance(each, dict):
        if key:
            msg = "`key` is for a list: the items of a map have their keys"
            raise ValueError(msg)
        return dict(each)
    found: dict[str, Value] = {}
    for number, item in enumerate(each):
        own = _key(item, key, number)
        if own in found:
            msg = f"two items of `each` are called {own}"
            raise ValueError(msg)
        found[own] = item
    return found


def filled(settings: Mapping[str, Any], key: str, item: Value) -> dict[str, Any]:
    """Settings with an item in the places of `{each…}` and `{key}`, escaped where the place is in an address.

    Raises ValueError for a place of which the item knows nothing.
    """
    made: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _AS_GIVEN:
            made[name] = value
        elif name in _WITH_ADDRESS and value is not None:
            made[name] = {inner: _put(one, key, item, address=inner == "url") for inner, one in value.items()}
        else:
            made[name] = _put(value, key, item, address=name == "url")
    return made


def _put(value: Value, key: str, item: Value, *, address: bool) -> Value:
    def leaf(text: Value) -> Value:
        if isinstance(text, Secret):
            return Secret(_text(text.reveal(), key, item, address=address))
        if not isinstance(text, str):
            return text
        places = list(_PLACE.finditer(text))
        values = [_value(place, key, item) for place in places]
        if not address and places and places[0][0] == text:
            return values[0]
        made = _text(text, key, item, address=address)
        return Secret(made) if any(secrets_in(value) for value in values) else made

    return transform(value, leaf)


def _text(text: str, key: str, item: Value, *, address: bool) -> str:
    def put(place: re.Match[str]) -> str:
        found = revealed(_value(place, key, item))
        plain = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        # What an address begins with is one itself.
        return quote(plain, safe="") if address and place.start() > 0 else plain

    return _PLACE.sub(put, text)


def _value(place: re.Match[str], key: str, item: Value) -> Value:
    if place[1]:
        return key
    found = item
    for step in filter(None, place[2].split(".")):
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif isinstance(found, list | tuple) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            msg = f"the item {key} of `each` has no {place[2].removeprefix('.')}, for `{place[0]}`"
            raise ValueError(msg)
    return found


def _key(item: Value, path: str, number: int) -> str:
    candidates = (path,) if path else _USUAL_KEYS
    found = item if isinstance(item, str | int) and not path and not isinstance(item, bool) else None
    for candidate in candidates:
        value: Value = item
        for step in candidate.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if found is None and isinstance(value, str | int) and not isinstance(value, bool):
            found = value
    if found is None or found == "":
        msg = f"item {number} of `each` does not say what it is called: " + (
            f"it has no {path}" if path else "give it a `name`, or say by `key` where to look"
        )
        raise ValueError(msg)
    return str(found)
