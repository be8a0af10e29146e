from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.rehearsal.spec import Rehearsal

SITES = {"cloud": {"prefix": "198.51.100.0/24"}, "lab": {"prefix": "203.0.113.0/24"}}


def section(**parts: Any) -> Rehearsal:
    return Rehearsal.model_validate({"sites": SITES} | parts)


def complaint(**parts: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        section(**parts)
    return str(refused.value)


def test_an_unknown_key_is_refused() -> None:
    assert "colour" in complaint(hosts={"gw": {"site": "lab", "colour": "red"}})


def test_overlapping_sites_are_refused() -> None:
    assert "overlaps" in complaint(sites={"a": {"prefix": "10.0.0.0/16"}, "b": {"prefix": "10.0.1.0/24"}})


def test_a_site_on_the_control_network_is_refused() -> None:
    assert "overlaps control" in complaint(sites={"a": {"prefix": "198.18.0.0/24"}})


def test_a_host_on_a_site_that_does_not_exist_is_refused() -> None:
    assert "names no site: mars; there are cloud, lab" in complaint(hosts={"gw": {"site": "mars"}})


@pytest.mark.parametrize("address", ["10.0.0.1", "203.0.113.1"])
def test_an_address_that_is_outside_or_the_routers_is_refused(address: str) -> None:
    assert "is no free address" in complaint(hosts={"gw": {"site": "lab", "address": address}})


def test_two_hosts_with_one_address_are_refused() -> None:
    host = {"site": "lab", "address": "203.0.113.10"}
    assert "already that of one" in complaint(hosts={"one": host, "two": host})


def test_a_host_without_any_network_is_refused() -> None:
    assert "a stand-in needs" in complaint(hosts={"gw": {}})


def test_an_address_without_a_site_is_refused() -> None:
    assert "`address` needs a `site`" in complaint(hosts={"gw": {"address": "203.0.113.10"}})


def test_standing_for_an_instance_needs_a_cloud() -> None:
    assert "needs an `aws:` section" in complaint(hosts={"gw": {"stands_for": {"aws_instance": {"Name": "gw"}}}})


@pytest.mark.parametrize("name", ["router", "control", "switch", "aws"])
def test_a_host_named_as_a_part_of_every_world_is_refused(name: str) -> None:
    assert "choose another name" in complaint(hosts={name: {"site": "lab"}})


def test_a_public_key_of_something_not_generated_is_refused() -> None:
    assert "no generated secret" in complaint(inputs={"key": {"public_key_of": "ssh_key"}})


def test_a_number_is_no_prefix() -> None:
    assert "expected a text" in complaint(sites={"a": {"prefix": 24}})


def test_elastic_ips_outside_their_site_are_refused() -> None:
    assert "is not inside cloud" in complaint(aws={"site": "cloud", "elastic_ips": "192.0.2.0/24"})


def test_elastic_ips_come_from_the_upper_half_of_their_site_by_default() -> None:
    assert str(section(aws={"site": "cloud"}).elastic_ips) == "198.51.100.128/25"


def test_a_mapping_as_an_input_stays_what_it_is() -> None:
    assert section(inputs={"tags": {"owner": "me"}}).inputs["tags"] == {"owner": "me"}


def test_the_section_survives_its_way_to_the_world() -> None:
    whole = section(
        aws={"site": "cloud"},
        hosts={"gw": {"site": "cloud", "stands_for": {"aws_instance": {"Name": "gw"}}}},
        secrets={"ssh_key": "generated", "token": {"value": "x"}},
        inputs={"key": {"public_key_of": "ssh_key"}, "number": 3},
    )
    assert Rehearsal.model_validate(whole.model_dump(mode="json", exclude_unset=True)) == whole
