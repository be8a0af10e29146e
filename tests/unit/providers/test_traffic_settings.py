"""The settings of a traffic stage: what is refused, in words, before anything is looked at."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.providers.traffic.spec import Flow, TrafficSpec, bits_per_second

EAST, WEST = {"host": "east"}, {"host": "west"}


def flow(kind: str, **settings: Any) -> Flow:
    return Flow.model_validate({"kind": kind, "from": EAST, "to": WEST} | settings)


@pytest.mark.parametrize(
    ("written", "bits"),
    [("10M", 10e6), ("1.5G", 1.5e9), ("500k", 5e5), ("64 kbit/s", 64e3), ("2Mbps", 2e6), (1200, 1200), (0.5, 0.5)],
)
def test_rates_are_written_as_people_write_them(written: Any, bits: float) -> None:
    assert bits_per_second(written) == bits


@pytest.mark.parametrize("written", ["10MB", "fast", "-1", "", True, None, "1e9"])
def test_what_is_no_rate_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="is no rate: write bits per second as 500k, 10M or"):
        bits_per_second(written)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "ping", "rate": "1M"}, "'rate' has no meaning for ping"),
        ({"kind": "iperf3", "walk": True, "tls": True}, "'tls' has no meaning for iperf3; 'walk' has no meaning"),
        (
            {"kind": "iperf3", "thresholds": {"max_loss": 0.1}},
            "iperf3 over tcp has no figure for 'max_loss'; there are",
        ),
        ({"kind": "iperf3", "reverse": True, "thresholds": {"max_latency": "1s"}}, "has no figure for 'max_latency'"),
        ({"kind": "udp", "thresholds": {"min_throughput": "1M"}}, "udp has no figure for 'min_throughput'"),
        ({"kind": "tcp", "pause": "5s"}, "'pause' is for flows in the background"),
        ({"kind": "tcp", "to": {}}, "`to` needs a host, a container or an address"),
        ({"kind": "tcp", "to": {"address": "10.0.0.1"}}, "a service that is there already needs its `port`"),
        ({"kind": "udp", "existing": True}, "a service that is there already needs its `port`"),
        ({"kind": "http", "tls": True}, "`tls` is only for a service that is there"),
        ({"kind": "tcp", "per_second": 1000, "duration": "11s"}, "more than 10000 requests in one measurement"),
        ({"kind": "snmp", "oid": "sysUpTime.0"}, "'sysUpTime.0' is no object identifier in numbers"),
        ({"kind": "ping", "to": {"address": "-c 5"}}, "'-c 5' is neither an IP address nor a name"),
        ({"kind": "ping", "to": {"host": "west", "container": "-it"}}, "pattern"),
        ({"kind": "ping", "to": {"address": "10.0.0.1; reboot"}}, "is neither an IP address nor a name"),
        ({"kind": "http", "path": "no/slash"}, "pattern"),
        ({"kind": "ping", "dscp": 64}, "less than or equal to 63"),
        ({"kind": "ping", "thresholds": {"max_loss": 2}}, "less than or equal to 1"),
        ({"kind": "ftp"}, "Input should be 'iperf3', 'tcp', 'udp', 'http', 'snmp' or 'ping'"),
    ],
)
def test_what_cannot_work_is_refused_in_words(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        flow(**settings)
    assert words in str(refused.value)


def test_two_flows_cannot_listen_on_one_port_of_one_end() -> None:
    two = {name: {"kind": "tcp", "to": WEST, "port": 47800} for name in ("one", "two")}
    with pytest.raises(ValidationError, match="one and two both listen on port 47800 of west"):
        TrafficSpec.model_validate({"flows": two})
    two["two"] |= {"to": {"host": "west", "container": "r1"}}
    assert len(TrafficSpec.model_validate({"flows": two}).flows) == 2


@pytest.mark.parametrize("ports", ["47800", "5-4", "0-10", "1-70000", "a-b"])
def test_ports_are_a_range(ports: str) -> None:
    with pytest.raises(ValidationError, match="is no range of ports"):
        TrafficSpec.model_validate({"flows": {"one": {"kind": "ping", "to": WEST}}, "ports": ports})


def test_a_community_may_be_written_in_clear_and_never_shows() -> None:
    settings = flow("snmp", community="public-knowledge")
    assert settings.community is not None
    assert settings.community.reveal() == "public-knowledge"
    assert "public-knowledge" not in repr(settings)


def test_something_is_started_where_the_target_is_ours_and_not_there_yet() -> None:
    assert flow("tcp").served
    assert not flow("ping").served
    assert not flow("snmp").served
    assert not flow("http", existing=True).served
    assert not flow("iperf3", to={"address": "10.0.0.1"}, port=5201).served
