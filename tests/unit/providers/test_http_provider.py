"""The http stage's pure parts: expectations, picking, requests, redirects."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.model.error import OutputError, ToolFailedError
from skyspan.model.secret import Secret
from skyspan.providers.http.exchange import Request, redirected, request_of, shown_url
from skyspan.providers.http.expect import Answer, Expectation, mismatches, pick
from skyspan.providers.http.spec import HttpSpec

DOCUMENT = {"data": [{"id": 7, "a/b": 1, "m~n": 2}], "": 3, "a.b": 4}


@pytest.mark.parametrize(
    ("path", "value"),
    [("/data/0/id", 7), ("data.0.id", 7), ("$.data.0.id", 7), ("/data/0/a~1b", 1), ("/data/0/m~0n", 2), ("/a.b", 4)],
)
def test_values_are_picked_by_pointer_and_by_dotted_path(path: str, value: int) -> None:
    assert pick(DOCUMENT, path) == value


def test_the_empty_path_is_the_whole_document() -> None:
    assert pick(DOCUMENT, "") is DOCUMENT
    assert pick(DOCUMENT, "$") is DOCUMENT


@pytest.mark.parametrize("path", ["/data/1", "/data/x", "/data/0/id/deeper", "none", "/data/-1"])
def test_what_is_not_there_is_told(path: str) -> None:
    with pytest.raises(OutputError, match="the answer has no"):
        pick(DOCUMENT, path)


@pytest.mark.parametrize(
    ("patterns", "accepted", "refused"),
    [(200, 200, 201), ("2xx", 299, 300), ("200-204", 204, 205), ([201, "3xx"], 302, 200)],
)
def test_statuses_are_numbers_classes_and_ranges(patterns: Any, accepted: int, refused: int) -> None:
    expected = Expectation.model_validate({"status": patterns})
    assert expected.accepts(accepted)
    assert not expected.accepts(refused)


@pytest.mark.parametrize("status", ["2yy", "99", 99, 600, "200-", [], "all"])
def test_what_is_no_status_is_refused(status: Any) -> None:
    with pytest.raises(ValidationError):
        Expectation.model_validate({"status": status})


def test_an_expectation_may_be_the_status_alone() -> None:
    assert HttpSpec.model_validate({"url": "http://x", "expect": 204}).expect.status == ("204",)
    assert HttpSpec.model_validate({"url": "http://x", "expect": ["2xx", 409]}).expect.status == ("2xx", "409")


def test_a_wrong_status_is_the_only_thing_told_about_an_answer() -> None:
    expected = Expectation.model_validate({"json": {"a": 1}, "contains": "x"})
    assert mismatches(expected, Answer(500, "Oops", body=b"{}")) == ("status 500 Oops, expected 2xx",)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://x"},
        {"url": "x"},
        {"url": "http://x", "headers": {"A": "b\r\nC: d"}},
        {"url": "http://x", "headers": {"A b": "c"}},
        {"url": "http://x", "method": "BREW"},
        {"url": "http://x", "auth": {}},
        {"url": "http://x", "auth": {"bearer": "a", "basic": {"user": "u", "password": "p"}}},
        {"url": "http://x", "check": {"url": "http://x", "method": "POST"}},
        {"url": "http://x", "outputs": {"a b": "c"}},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpSpec.model_validate(settings)


def test_the_method_follows_from_the_body() -> None:
    assert HttpSpec.model_validate({"url": "http://x"}).verb == "GET"
    assert HttpSpec.model_validate({"url": "http://x", "body": {}}).verb == "POST"
    assert HttpSpec.model_validate({"url": "http://x", "method": "put"}).verb == "PUT"


def request(**more: Any) -> Request:
    settings: dict[str, Any] = {"headers": {}, "query": {}, "body": None, "auth": None, "timeout_s": 1.0}
    return request_of("POST", "https://user:pw@a.example/x?t=1#f", **(settings | more))


def test_a_text_is_sent_as_it_is_and_anything_else_as_json() -> None:
    assert request(body="a=b").body == b"a=b"
    assert request(body=Secret("text")).body == b"text"
    assert request(body={"k": [Secret("v"), 1, None]}).body == b'{"k": ["v", 1, null]}'
    assert request(body=False).body == b"false"
    assert request().body is None


def test_given_headers_go_before_our_own() -> None:
    wire = request(body="x", headers={"content-type": "text/csv", "AUTHORIZATION": "mine"}).headers
    assert wire["content-type"] == "text/csv"
    assert "Content-Type" not in wire
    auth = HttpSpec.model_validate(
        {"url": "http://x", "auth": {"basic": {"user": "u", "password": Secret("p:q")}}}
    ).auth
    assert request(auth=auth).headers["Authorization"] == "Basic " + base64.b64encode(b"u:p:q").decode()


def test_an_address_is_shown_without_credentials_and_query() -> None:
    assert shown_url("https://user:pw@a.example:8443/x?token=1#f") == "https://a.example:8443/x"
    assert shown_url(Secret("https://hooks.example/T0/B0")) == "***"
    assert "pw" not in repr(request(auth=None))


def sent(method: str = "GET", body: bytes | None = None) -> Request:
    return Request(
        method, "https://a.example/x", "https://a.example/x", {"Authorization": "s", "Accept": "*/*"}, body=body
    )


HERE = "https://a.example/x"


def test_a_see_other_becomes_a_get_without_body() -> None:
    after = redirected(sent("POST", b"x"), 303, "/y", HERE)
    assert (after.method, after.url, after.body) == ("GET", "https://a.example/y", None)
    assert after.headers["Authorization"] == "s"


def test_a_permanent_redirect_keeps_a_put() -> None:
    after = redirected(sent("PUT", b"x"), 308, "/y", HERE)
    assert (after.method, after.body) == ("PUT", b"x")


@pytest.mark.parametrize("target", ["https://b.example/", "https://a.example:444/", "//b.example/x"])
def test_another_origin_gets_no_headers_of_ours(target: str) -> None:
    assert redirected(sent(), 302, target, HERE).headers == {"Accept": "*/*"}


@pytest.mark.parametrize("target", ["http://a.example/x", "file:///etc/passwd", "ftp://a.example/"])
def test_a_redirect_to_something_less_safe_is_not_followed(target: str) -> None:
    with pytest.raises(ToolFailedError, match="not followed"):
        redirected(sent(), 302, target, HERE)
