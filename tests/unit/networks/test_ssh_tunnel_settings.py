"""What the settings of an ssh-tunnel stage take, and what they refuse in words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.contracts.forwarding import Forward, Forwarding, ForwardKind
from skyspan.networks.sshtunnel.spec import SshTunnelSpec
from skyspan.planning.settings import mentioned_hosts, named_hosts


def spec(**forwards: Any) -> SshTunnelSpec:
    return SshTunnelSpec.model_validate({"through": "gw", "forwards": forwards})


def local(listen: str, to: str = "10.0.0.1:80") -> dict[str, Any]:
    return {"local": {"listen": listen, "to": to}}


def remote(listen: str) -> dict[str, Any]:
    return {"remote": {"listen": listen, "to": "127.0.0.1:80"}}


def test_every_kind_becomes_a_forward() -> None:
    found = spec(
        db=local("127.0.0.1:5432", "db.lab:5432"),
        back=remote("[::1]:8080"),
        proxy={"dynamic": {"listen": "0.0.0.0:1080", "probe": "[2001:db8::1]:22"}},
    ).forwarding
    assert found == Forwarding(
        "gw",
        (
            Forward("db", ForwardKind.LOCAL, ("127.0.0.1", 5432), ("db.lab", 5432)),
            Forward("back", ForwardKind.REMOTE, ("::1", 8080), ("127.0.0.1", 80)),
            Forward("proxy", ForwardKind.DYNAMIC, ("0.0.0.0", 1080)),
        ),
        5.0,
        3,
    )


@pytest.mark.parametrize(
    ("forwards", "words"),
    [
        ({"db": local("::1:5432")}, "write an IPv6 address in brackets"),
        ({"db": local("127.0.0.1:80", "2001:db8::1:22")}, "write an IPv6 address in brackets"),
        ({"db": local("127.0.0.1")}, "has no port"),
        ({"db": local("127.0.0.1:0")}, "a port between 1 and 65535"),
        ({"db": local("127.0.0.1:65536")}, "a port between 1 and 65535"),
        ({"db": local("localhost:80")}, "listen on an IP address"),
        ({"db": local("127.0.0.300:80")}, "127.0.0.300 is no IPv4 address"),
        ({"db": local("127.0.0.1:80", "10.0.0:22")}, "10.0.0 is no IPv4 address"),
        ({"db": local("127.0.0.1:80", "a b:22")}, "is no address"),
        ({"db": {}}, "give one of `local`, `remote` and `dynamic`"),
        ({"db": local("127.0.0.1:80") | remote("127.0.0.1:80")}, "give one of"),
        ({"a": local("127.0.0.1:80"), "b": local("127.0.0.1:80")}, "a and b both listen on port 80"),
        ({"a": local("0.0.0.0:80"), "b": {"dynamic": {"listen": "127.0.0.1:80"}}}, "a and b both listen on port 80"),
        ({"a": remote("127.0.0.1:80"), "b": remote("0.0.0.0:80")}, "a and b both listen on port 80"),
        ({"Not A Name": local("127.0.0.1:80")}, "pattern"),
        ({}, "at least 1 item"),
    ],
)
def test_what_cannot_work_is_refused_in_words(forwards: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        spec(**forwards)
    assert words in str(raised.value)


def test_a_port_may_be_listened_on_at_both_ends_and_on_two_addresses() -> None:
    made = spec(a=local("127.0.0.1:80"), b=remote("127.0.0.1:80"), c=local("127.0.0.2:80"), d=local("[::]:80"))
    assert len(made.forwarding.forwards) == 4


def test_the_host_that_it_leads_through_is_known_as_one_of_the_composition() -> None:
    assert dict(named_hosts({"through": "gw", "forwards": {}})) == {("through",): "gw"}
    assert mentioned_hosts({"through": "gw"}) == {"gw"}


@pytest.mark.parametrize("keepalive", [{"interval": 0}, {"count": 0}, {"interval": "2h"}])
def test_a_keepalive_that_notices_nothing_is_refused(keepalive: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SshTunnelSpec.model_validate(
            {"through": "gw", "forwards": {"a": local("127.0.0.1:80")}, "keepalive": keepalive}
        )
