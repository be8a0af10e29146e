"""What `skyspan watch` tells people when it ends: the measure with its length, never more than that."""

from __future__ import annotations

from typing import Any

import click
import pytest

from skyspan.cli.views.watch import show_summary

DOCUMENT: dict[str, Any] = {
    "deployment": "hub",
    "began_at": "2026-11-21T20:00:00.000Z",
    "watched_s": 600.4,
    "period_s": 1.0,
    "repairing": False,
    "target": 0.999,
    "allowed_s_in_30_days": 2592.0,
    "links": {
        "link": {
            "health": "up",
            "availability": 0.98,
            "watched_s": 600.0,
            "outages": 2,
            "longest_outage_s": 8.0,
            "directions": [
                {"from": "a", "to": "b", "availability": 0.98, "outages": 2, "longest_outage_s": 8.0},
                {"from": "b", "to": "a", "availability": 1.0, "outages": 0, "longest_outage_s": 0.0},
            ],
            "repair_s": {"daemon-down": 6.0},
            "faults": {"daemon-down": {"outages": 2, "mean_s": 6.0, "longest_s": 8.0}},
        }
    },
}


def shown(capsys: pytest.CaptureFixture[str], document: dict[str, Any]) -> list[str]:
    show_summary(document)
    return [line.rstrip() for line in click.unstyle(capsys.readouterr().out).splitlines()]


def test_every_direction_and_every_cause_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, DOCUMENT)
    assert [line.split() for line in lines if "->" in line] == [
        ["link", "·", "up", "a", "->", "b", "98.000", "%", "2", "8.0s"],
        ["link", "·", "up", "b", "->", "a", "100.000", "%", "0", "0.0s"],
    ]
    assert ["link", "daemon-down", "2", "6.0s", "8.0s"] in [line.split() for line in lines]
    assert lines[-1] == (
        "measured for 10m00s, a probe every 1 s, looking on only; 99.9 % leaves 43.2 minutes in 30 days"
    )


def test_without_an_outage_no_cause_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    link = DOCUMENT["links"]["link"] | {"faults": {}, "outages": 0}
    lines = shown(capsys, DOCUMENT | {"links": {"link": link}, "repairing": True})
    assert not any("cause" in line for line in lines)
    assert "repairing;" in lines[-1]
