"""The settings of an http stage."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import OutputName, Seconds
from skyspan.model.secret import Secret
from skyspan.model.value import Value
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
    if isinstance(url, str) and not url.lower().startswith(("http://", "https://")):
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

    @property
    def verb(self) -> str:
        """The method, the default filled in."""
        return self.method or ("GET" if self.body is None else "POST")
