"""Secret: a text that cannot be printed, joined or formatted by accident."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

MASK = "***"

_AUTH_KEY = re.compile(r"\b((?:tskey|hskey)-)[A-Za-z0-9_-]+")


def without_auth_keys(text: str) -> str:
    """The text with everything in it that looks like an auth key of a tailnet masked, known as a secret or not."""
    return _AUTH_KEY.sub(rf"\1{MASK}", text)


class Secret:
    """A sensitive text. Not a `str`: only `reveal()` gives the text, and only sinks that need it may call that."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the last moment before it leaves to the tool that needs it."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def _refuse(self, *_: Any) -> NoReturn:
        msg = "a Secret cannot be printed, joined or formatted; pass it on whole or call reveal() at the sink"
        raise TypeError(msg)

    __str__ = __format__ = __add__ = __radd__ = __mod__ = __iter__ = __len__ = __getitem__ = _refuse

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema  # what only lists and shows needs no pydantic

        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "A secret: write it as an expression, ${{ secrets.NAME }}."}
