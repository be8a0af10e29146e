from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from skyspan.model.error import UsageError
from skyspan.rehearsal.faults.on_hosts import Act, Clock, Kill, Reboot, Renumber, Start, act
from skyspan.rehearsal.spec import Rehearsal

WORLD = Rehearsal.model_validate(
    {
        "sites": {"cloud": {"prefix": "198.51.100.0/24"}, "lab": {"prefix": "203.0.113.0/24"}},
        "aws": {"site": "cloud"},
        "hosts": {
            "gw": {"site": "lab", "address": "203.0.113.10", "services": {"http": {"kind": "recorder"}}},
            "cloud-gw": {"site": "cloud", "stands_for": {"aws_instance": {"Name": "gw"}}},
            "old": {"site": "cloud", "address": "198.51.100.10"},
        },
    }
)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("renumber gw 203.0.113.77", Renumber("gw", IPv4Address("203.0.113.77"))),
        ("kill gw charon", Kill("gw", "charon")),
        ("start gw http", Start("gw", "http")),
        ("reboot cloud-gw", Reboot("cloud-gw")),
        ("clock gw -90", Clock("gw", -90)),
        ("clock gw 0", Clock("gw", 0)),
        ("cut cloud lab", None),
        ("kill gw", None),
    ],
)
def test_words_mean_an_act_upon_a_stand_in_or_none(words: str, meant: Act | None) -> None:
    assert act(words.split(), WORLD) == meant


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("reboot mars", "there is no stand-in mars"),
        ("start gw ftp", "gw has no service ftp"),
        ("clock gw soon", "soon is no whole number of seconds"),
        ("clock gw 999999999999", "no whole number of seconds"),
        ("renumber gw 203.0.113", "203.0.113 is no IPv4 address"),
        ("renumber gw 203.0.113.1", "no address that gw could have"),
        ("renumber gw 203.0.113.255", "no address that gw could have"),
        ("renumber gw 198.51.100.9", "no address that gw could have"),
        ("renumber cloud-gw 198.51.100.9", "no address of its own"),
        ("renumber old 198.51.100.200", "no address that old could have"),
    ],
)
def test_an_act_that_cannot_be_is_refused_with_what_to_do(words: str, complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        act(words.split(), WORLD)
    assert complaint in refused.value.summary
    assert refused.value.hint
