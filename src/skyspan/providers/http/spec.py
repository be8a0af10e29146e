"""The settings of an http stage."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import OutputName, Seconds
from skyspan.model.secret import Secret
from skyspan.model.value import Value
from skyspan.providers.http.each import filled, items_of
from skyspan.providers.http.expect import Expect, Expectation

Method: TypeAlias = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_HEADER = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


SecretText: TypeAlias = Annotated[str | Secret, BeforeValidator(_text)]
Verb: TypeAlias = Annotated[Method, BeforeValidator(_upper)]


def _checked_url(url: str | Secret | None) -> str | Secret | None:
    if isinstance(url, str) and not url.lower().startswith(("http://", "https://", "{each")):
        msg = f"{url!r} is no http:// or https:// address"
        raise ValueError(msg)
    return url


class Basic(Spec):
    """Name and password, sent with every request."""

    user: SecretText
    """Login name."""
    password: SecretText
    """Password."""


class Auth(Spec):
    """Who asks: one of these."""

    basic: Basic | None = None
    """Name and password."""
    bearer: SecretText | None = None
    """A token, sent as `Authorization: Bearer …`."""

    @model_validator(mode="after")
    def _one(self) -> Auth:
        if (self.basic is None) == (self.bearer is None):
            msg = "give either `basic` or `bearer`"
            raise ValueError(msg)
        return self


class Retries(Spec):
    """How often a request is sent within one attempt of the stage."""

    attempts: int = Field(default=3, ge=1, le=20)
    """How often in all: no connection, no answer in time, and statuses 429, 500, 502, 503 and 504 are tried again."""
    backoff: Seconds = 1.0
    """Pause before the second request; doubles each time. A `Retry-After` of up to a minute goes first."""


class CheckRequest(Spec):
    """A request that changes nothing and tells whether the thing is there."""

    url: str | Secret
    """Address; `{name}` stands for the output of that name."""
    method: Annotated[Literal["GET", "HEAD"], BeforeValidator(_upper)] = "GET"
    """GET or HEAD."""
    expect: Expect = Expectation()
    """The answer when it is there. 404 and 410 mean that it is absent; another mismatch that it has drifted."""

    _url = field_validator("url")(_checked_url)


class FindRequest(Spec):
    """A request that tells whether the thing is there before it is made."""

    url: str | Secret
    """Address of a GET, such as a search by name."""
    outputs: dict[OutputName, str] = Field(min_length=1)
    """What says so, by JSON pointer or dotted path into the answer (`{id: results.0.id}`): when all of it is there, the
    thing is, and `update` is sent with these outputs."""

    _url = field_validator("url")(_checked_url)


class UpdateRequest(Spec):
    """The request that changes what is there, where that is another one than the request that makes it."""

    url: str | Secret
    """Address; `{name}` stands for the output of that name."""
    method: Verb = "PATCH"
    """Method."""
    body: Value = None
    """Default: the stage's own."""
    expect: Expect = Expectation()
    """The answer of success; on 404 and 410 the thing is made anew."""

    _url = field_validator("url")(_checked_url)


class DestroyRequest(Spec):
    """The request that undoes the stage."""

    url: str | Secret
    """Address; `{name}` stands for the output of that name."""
    method: Verb = "DELETE"
    """Method."""
    body: Value = None
    """As for the stage's own request."""
    expect: Expect = Expectation()
    """The answer of success; 404 and 410 are success too."""

    _url = field_validator("url")(_checked_url)


class HttpSpec(Spec):
    """What to send, what to expect, and what to pick from the answer."""

    url: str | Secret
    """Address, http:// or https://."""
    method: Verb | None = None
    """Method; default: POST with a body, GET without."""
    headers: dict[str, SecretText] = Field(default_factory=dict)
    """Headers, for all requests of the stage; never sent on to another origin by a redirect."""
    query: dict[str, SecretText] = Field(default_factory=dict)
    """Query parameters, added to the address."""
    body: Value = None
    """A text is sent as it is, anything else as JSON. The request must be safe to repeat."""
    each: list[Value] | dict[str, Value] | None = None
    """Send the request once for each item of a list or a map, such as the nodes of a lab. In `url`, `headers`, `query`,
    `body`, `expect`, `auth`, `check`, `find`, `update` and `destroy`, `{each}` stands for the item, `{each.ipv4}` for
    what it has of that name, and `{key}` for what it is called; in an address it is escaped, but not at its start. A
    changed item is sent again, and one that is no longer there is undone by its `destroy`. Outputs are maps by the
    items' keys."""
    key: str = ""
    """Where an item of a list says what it is called, as a dotted path; default: its `name`, else its `id`, or the item
    itself when it is a text. The items of a map have their keys."""
    expect: Expect = Expectation()
    """The answer of success; a number or a list alone means the status."""
    outputs: dict[OutputName, str] = Field(default_factory=dict)
    """Outputs, each by JSON pointer (`/data/id`) or dotted path (`data.id`) into the JSON answer."""
    timeout: Seconds = 30.0
    """How long one request may take."""
    retries: Retries = Retries()
    """How often it is tried within one attempt."""
    auth: Auth | None = None
    """Who asks; never sent on to another origin by a redirect."""
    verify: bool | str = True
    """Check the server's certificate: true, false, or the path of a CA file relative to the composition."""
    check: CheckRequest | None = None
    """Tells whether the thing is there; without it the stage remembers that the request succeeded."""
    find: FindRequest | None = None
    """Asked before the thing is made: it may be there already, by somebody else or by an attempt that was cut off. With
    `update` only."""
    update: UpdateRequest | None = None
    """Changes what is there: `method` and `url` make a thing (POST), this changes it (PATCH). Default: the same request
    does both. Outputs are picked from its answer too, and those that are not in it stay."""
    destroy: DestroyRequest | None = None
    """Undoes it; without it, destroying only forgets the stage."""

    _url = field_validator("url")(_checked_url)

    @field_validator("headers")
    @classmethod
    def _sane_headers(cls, headers: dict[str, str | Secret]) -> dict[str, str | Secret]:
        for name, value in headers.items():
            text = value if isinstance(value, str) else value.reveal()
            if not _HEADER.match(name) or any(char in text for char in "\r\n\0"):
                msg = f"{name!r} is no header, or its value holds a line break"
                raise ValueError(msg)
        return headers

    @model_validator(mode="after")
    def _each_fits(self) -> HttpSpec:
        if self.each is None and self.key:
            msg = "`key` is for `each`"
            raise ValueError(msg)
        _ = self.singles
        return self

    @model_validator(mode="after")
    def _finds_to_update(self) -> HttpSpec:
        if self.find is not None and self.update is None:
            msg = "`find` needs `update`: what to send when it is there"
            raise ValueError(msg)
        return self

    @cached_property
    def singles(self) -> dict[str, HttpSpec]:
        """The settings of each item's request, by key; none without `each`."""
        settings = self.model_dump(exclude={"each", "key"}, exclude_unset=True, by_alias=True)
        items = {} if self.each is None else items_of(self.each, self.key)
        return {key: HttpSpec.model_validate(filled(settings, key, item)) for key, item in items.items()}

    @property
    def verb(self) -> str:
        """The method, the default filled in."""
        return self.method or ("GET" if self.body is None else "POST")
