from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.app.yaml_source import parse_yaml
from skyspan.rehearsal.services import tailnet
from skyspan.rehearsal.services.runner import programs_of
from skyspan.rehearsal.spec import Headscale, Rehearsal

SERVICES = {"ctl": {"kind": "headscale"}}


def world(**hosts: Any) -> Rehearsal:
    return Rehearsal.model_validate({"sites": {"office": {"prefix": "10.98.0.0/24"}}, "hosts": hosts})


def test_the_servers_settings_are_whole_and_name_its_address() -> None:
    service = Headscale(kind="headscale", port=9090, domain="tail.example.org")
    settings: Any = parse_yaml(tailnet.server_settings(service, IPv4Address("10.98.0.2")), "config.yaml")[0]
    assert settings["server_url"] == "http://10.98.0.2:9090"
    assert settings["derp"]["server"]["ipv4"] == "10.98.0.2"
    assert settings["derp"]["urls"] == []
    assert settings["dns"]["base_domain"] == "tail.example.org"


def test_a_key_with_tags_belongs_to_them_and_one_without_to_the_user() -> None:
    assert tailnet.key_options(Headscale(kind="headscale", tags=("tag:a", "tag:b"))) == ("--tags", "tag:a,tag:b")
    assert tailnet.key_options(Headscale(kind="headscale")) == ("--user", "1")


def test_only_what_a_world_runs_has_to_be_there() -> None:
    plain = {"site": "office", "address": "10.98.0.9"}
    assert programs_of(world(gw=plain)) == ()
    assert programs_of(world(gw=plain | {"services": {"t": {"kind": "tailscaled"}}})) == ("tailscale", "tailscaled")
    assert programs_of(world(gw=plain | {"services": SERVICES})) == ("headscale",)


@pytest.mark.parametrize(
    ("hosts", "complaint"),
    [
        ({"gw": {"site": "office", "services": SERVICES}}, "needs an address from the start"),
        (
            {
                name: {"site": "office", "address": f"10.98.0.{n}", "services": SERVICES}
                for n, name in enumerate("ab", 2)
            },
            "there is a headscale on a already",
        ),
        (
            {"gw": {"site": "office", "services": {"one": {"kind": "tailscaled"}, "two": {"kind": "tailscaled"}}}},
            "one tailscaled is all",
        ),
        ({"gw": {"site": "office", "services": {"one": {"kind": "derp"}}}}, "'recorder', 'headscale', 'tailscaled'"),
    ],
)
def test_services_that_cannot_be_are_refused(hosts: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as refused:
        world(**hosts)
    assert complaint in str(refused.value)
