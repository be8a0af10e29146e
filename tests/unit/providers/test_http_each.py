"""The items of an http stage: what they are called, and how they get into a request."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.model.secret import Secret
from skyspan.providers.http.each import items_of
from skyspan.providers.http.spec import HttpSpec

NODES = [{"name": "r1", "ipv4": "10.0.0.1", "ports": [1, 2]}, {"name": "r 2", "ipv4": None, "ports": []}]


def singles(**settings: Any) -> dict[str, HttpSpec]:
    return HttpSpec.model_validate(settings).singles


def test_items_are_called_by_their_name_or_id_or_what_they_are() -> None:
    assert list(items_of(NODES, "")) == ["r1", "r 2"]
    assert list(items_of([{"id": 4}, {"id": 5}], "")) == ["4", "5"]
    assert list(items_of(["a", 7], "")) == ["a", "7"]
    assert list(items_of([{"name": "x", "at": {"site": "s1"}}], "at.site")) == ["s1"]
    assert items_of({"k": 1}, "") == {"k": 1}
    assert items_of([], "") == {}


@pytest.mark.parametrize(
    ("each", "key", "complaint"),
    [
        ([{"name": "a"}, {"name": "a"}], "", "two items of `each` are called a"),
        ([{"title": "a"}], "", "item 0 of `each` does not say what it is called"),
        ([{"name": "a"}], "site", "it has no site"),
        ([True], "", "does not say what it is called"),
        ({"a": 1}, "name", "`key` is for a list"),
    ],
)
def test_items_that_cannot_be_told_apart_are_refused(each: Any, key: str, complaint: str) -> None:
    with pytest.raises(ValidationError) as refused:
        singles(url="http://a.test/{key}", each=each, key=key)
    assert complaint in str(refused.value)


def test_an_item_is_put_where_it_is_named_and_keeps_its_type_where_it_stands_alone() -> None:
    made = singles(
        url="http://a.test/devices/{key}?port={each.ports.1}",
        query={"text": "{each.ipv4}/32"},
        headers={"X-Name": "{each.name}"},
        body={"ports": "{each.ports}", "whole": "{each}", "text": "at {each.ports}", "kept": "{other}"},
        check={"url": "http://a.test/devices/{key}/{id}", "expect": {"json": {"/ip": "{each.ipv4}"}}},
        each=NODES[:1],
    )
    (one,) = made.values()
    assert one.url == "http://a.test/devices/r1?port=2"
    assert one.query == {"text": "10.0.0.1/32"}
    assert one.headers == {"X-Name": "r1"}
    assert one.body == {"ports": [1, 2], "whole": NODES[0], "text": "at [1, 2]", "kept": "{other}"}
    assert one.check is not None
    assert one.check.url == "http://a.test/devices/r1/{id}"
    assert one.check.expect.json_ == {"/ip": "10.0.0.1"}
    assert one.each is None


def test_what_is_put_into_an_address_is_escaped_but_not_at_its_start() -> None:
    made = singles(url="http://a.test/{key}", each=["a/b c"])
    assert made["a/b c"].url == "http://a.test/a%2Fb%20c"
    made = singles(url="{each.url}/{key}", each=[{"name": "x", "url": "https://b.test/api"}])
    assert made["x"].url == "https://b.test/api/x"
    with pytest.raises(ValidationError, match="no http"):
        singles(url="{each}", each=["ftp://b.test"])


def test_a_secret_in_an_item_stays_one() -> None:
    made = singles(
        url="http://a.test/{each.token}", body=["{each.token}", "t {each.token}"], each={"x": {"token": Secret("s")}}
    )
    assert isinstance(made["x"].url, Secret)
    assert made["x"].body == [Secret("s"), Secret("t s")]


def test_what_an_item_does_not_have_is_a_mistake_that_names_both() -> None:
    with pytest.raises(ValidationError, match=r"the item r1 of `each` has no mac, for `\{each\.mac\}`"):
        singles(url="http://a.test/", body={"mac": "{each.mac}"}, each=NODES)


def test_without_items_places_are_texts_and_a_key_is_a_mistake() -> None:
    assert HttpSpec.model_validate({"url": "http://a.test/", "body": "{each}"}).body == "{each}"
    with pytest.raises(ValidationError, match="`key` is for `each`"):
        HttpSpec.model_validate({"url": "http://a.test/", "key": "name"})
