"""Sends one HTTP request and brings back its answer, following redirects only where that is safe."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from skyspan.model.error import SpecError, ToolFailedError, UnreachableError
from skyspan.model.secret import MASK, Secret
from skyspan.model.value import Value, revealed
from skyspan.providers.http.expect import Answer
from skyspan.providers.http.spec import Auth

if TYPE_CHECKING:
    import aiohttp

LIMIT = 4 * 1024 * 1024
"""The most of a body that is read, in bytes."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_SAFE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request with everything in clear: for the wire only, so its `repr` shows neither headers nor body."""

    method: str
    url: str = field(repr=False)
    shown: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    timeout_s: float = 30.0


def shown_url(url: str | Secret) -> str:
    """The address for people: without credentials, query and fragment; a secret one only as the mask."""
    if isinstance(url, Secret):
        return MASK
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def request_of(
    method: str,
    url: str | Secret,
    *,
    headers: Mapping[str, str | Secret],
    query: Mapping[str, str | Secret],
    body: Value,
    auth: Auth | None,
    timeout_s: float,
) -> Request:
    """The request to send; a text body goes as it is, any other as JSON, unless `headers` say otherwise."""
    wire: dict[str, str] = {"Accept": "application/json, */*;q=0.5", "User-Agent": "skyspan"}
    data: bytes | None = None
    if body is not None:
        text = revealed(body)
        wire["Content-Type"] = "text/plain; charset=utf-8" if isinstance(text, str) else "application/json"
        data = (text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)).encode()
    if auth is not None:
        wire["Authorization"] = _authorization(auth)
    given = {name.lower() for name in headers}
    wire = {name: value for name, value in wire.items() if name.lower() not in given}
    return Request(
        method=method,
        url=revealed(url),
        shown=shown_url(url),
        headers={**wire, **revealed(headers)},
        query=revealed(query),
        body=data,
        timeout_s=timeout_s,
    )


def _authorization(auth: Auth) -> str:
    if auth.basic is not None:
        pair = f"{revealed(auth.basic.user)}:{revealed(auth.basic.password)}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    return f"Bearer {revealed(auth.bearer)}"


def trust(verify: bool | str) -> ssl.SSLContext | bool:
    """What decides whether a certificate is good; `verify` is a truth value or the path of a CA file.

    Raises SpecError for a CA file that cannot be used.
    """
    if isinstance(verify, bool):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except (OSError, ssl.SSLError) as error:
        raise SpecError(f"the CA file {verify} cannot be used", detail=str(error)) from error


async def exchange(request: Request, trusted: ssl.SSLContext | bool) -> Answer:
    """Send `request` and read the answer, `LIMIT` bytes of it at most.

    A redirect is followed within the same origin; to another one only by GET and HEAD, without the given headers,
    and never from https to http. Raises UnreachableError when there is no answer, and ToolFailedError for a redirect
    that is not followed.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=request.timeout_s)
    try:
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            for _ in range(_MOST_REDIRECTS + 1):
                answer = await _send(session, request, trusted)
                target = answer.headers.get("location")
                if answer.status not in _REDIRECTS or target is None:
                    return answer
                request = redirected(request, answer.status, target, answer.url)
    except aiohttp.ClientConnectorCertificateError as error:
        raise _untrusted(request, error) from error
    except aiohttp.ClientConnectorDNSError as error:
        raise UnreachableError(f"{request.shown}: the name cannot be resolved", detail=str(error.os_error)) from error
    except aiohttp.ClientConnectorSSLError as error:
        raise UnreachableError(f"{request.shown}: TLS failed", detail=str(error.os_error)) from error
    except aiohttp.ClientConnectorError as error:
        # asyncio's own text names only the address; the error number says what is wrong.
        number = error.os_error.errno
        words = os.strerror(number).lower() if number else type(error.os_error).__name__
        raise UnreachableError(f"{request.shown}: no connection: {words}", detail=str(error.os_error)) from error
    except (asyncio.TimeoutError, aiohttp.ServerTimeoutError) as error:  # noqa: UP041 - aiohttp's own is a child of it
        raise UnreachableError(f"{request.shown}: no answer in {request.timeout_s:g} s") from error
    except aiohttp.InvalidURL as error:
        raise SpecError(f"{request.shown} is no address that a request can be sent to") from error
    except aiohttp.ClientError as error:
        # Its text may quote headers of ours, so only its kind is told.
        raise UnreachableError(f"{request.shown}: the connection broke", detail=type(error).__name__) from error
    raise ToolFailedError(f"{request.shown}: more than {_MOST_REDIRECTS} redirects")


async def _send(session: aiohttp.ClientSession, request: Request, trusted: ssl.SSLContext | bool) -> Answer:
    arguments: dict[str, Any] = {"headers": request.headers, "data": request.body, "ssl": trusted}
    if request.query:
        arguments["params"] = request.query
    async with session.request(request.method, request.url, allow_redirects=False, **arguments) as answer:
        body = bytearray()
        async for chunk in answer.content.iter_chunked(65536):
            body += chunk
            if len(body) > LIMIT:
                break
        return Answer(
            status=answer.status,
            reason=answer.reason or "",
            headers={name.lower(): value for name, value in answer.headers.items()},
            body=bytes(body[:LIMIT]),
            url=str(answer.url),
            cut=len(body) > LIMIT,
        )


def redirected(request: Request, status: int, location: str, current: str) -> Request:
    """The request that a redirect asks for; raises ToolFailedError for one that must not be followed."""
    target = urljoin(current, location)
    before, after = urlsplit(current), urlsplit(target)
    if after.scheme not in {"http", "https"} or (before.scheme == "https" and after.scheme == "http"):
        raise ToolFailedError(
            f"{request.shown} redirects to {shown_url(target)}, which is not followed", hint="set `url` to it"
        )
    method, body = request.method, request.body
    if status == 303 or (status in {301, 302} and method == "POST"):
        method, body = ("HEAD" if method == "HEAD" else "GET"), None
    if (before.scheme, before.hostname, before.port) == (after.scheme, after.hostname, after.port):
        return replace(request, method=method, url=target, body=body, query={})
    if method not in _SAFE or body is not None:
        raise ToolFailedError(
            f"{request.shown} redirects this {method} to another server, {shown_url(target)}, which is not followed",
            hint="set `url` to where the request shall go",
        )
    plain = {name: value for name, value in request.headers.items() if name in {"Accept", "User-Agent"}}
    return replace(request, method=method, url=target, shown=shown_url(target), headers=plain, body=body, query={})


def _untrusted(request: Request, error: Exception) -> UnreachableError:
    from skyspan.model.error import Retry

    return UnreachableError(
        f"{request.shown}: its certificate is not trusted",
        detail=str(getattr(error, "certificate_error", error)),
        hint="name the CA that signed it in `verify`",
        retry=Retry.NEVER,
    )
