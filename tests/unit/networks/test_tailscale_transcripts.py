"""Real transcripts of the provider's own scripts, by version of tailscale, read as the provider reads them.

They were recorded with headscale 0.29.2 in network namespaces; keys are masked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skyspan.contracts.host import Host
from skyspan.model.error import StageError
from skyspan.networks.tailscale import compare, errors
from skyspan.networks.tailscale.errors import JoinFailure, join_error
from skyspan.networks.tailscale.parse import Survey, parse_status, parse_survey
from skyspan.networks.tailscale.ready import legs_of
from skyspan.networks.tailscale.spec import TailscaleSpec

VERSIONS = sorted((Path(__file__).parent / "transcripts").glob("tailscale-*.json"))
SPEC = TailscaleSpec.model_validate(
    {
        "hosts": ["app-1"],
        "tailnet_domain": "tail.skyspan.test",
        "login_server": "http://10.98.0.1:8080",
        "default_tags": ["tag:web"],
        "advertise_routes": {"app-1": ["10.9.0.0/24"]},
        "accept_dns": False,
    }
)
MEMBER = compare.members_of(SPEC, {"app-1": Host("app-1", "10.98.0.2")}, "default/proof/stage")[0]


@dataclass(frozen=True)
class Transcript:
    """What the scripts said on one version."""

    version: str
    said: Mapping[str, Mapping[str, Any]]

    def survey(self, name: str) -> Survey:
        return parse_survey(self.said[f"survey: {name}"]["out"])


@pytest.fixture(params=VERSIONS, ids=lambda path: path.stem)
def transcript(request: pytest.FixtureRequest) -> Transcript:
    return Transcript(request.param.stem.partition("-")[2], json.loads(request.param.read_text()))


def test_there_are_transcripts() -> None:
    assert VERSIONS


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("short key", errors.AuthKeyInvalidError),
        ("wrong key", errors.AuthKeyInvalidError),
        ("used key", errors.AuthKeyUsedError),
        ("expired key", errors.AuthKeyExpiredError),
        ("tags with a key that has tags", errors.TagsNotPermittedError),
        ("tags with a key that has none", errors.TagsNotPermittedError),
        ("entry that has expired", errors.MemberExpiredError),
        ("server down", errors.ControlUnreachableError),
        ("no daemon", errors.DaemonUnavailableError),
    ],
)
def test_every_failure_to_join_is_told_apart(transcript: Transcript, name: str, kind: type[StageError]) -> None:
    said = transcript.said[f"change: {name}"]
    node = parse_status(said["out"]) if said["out"] else None
    failure = JoinFailure("app-1", said["err"], node.state if node else "", node.health if node else ())
    assert type(join_error(failure)) is kind


@pytest.mark.parametrize("name", ["up without all flags", "up with another server"])
def test_settings_of_somebody_elses_are_a_conflict(transcript: Transcript, name: str) -> None:
    assert type(join_error(JoinFailure("app-1", transcript.said[name]["err"]))) is errors.PrefsConflictError


def test_a_daemon_that_is_logged_out_has_to_join(transcript: Transcript) -> None:
    seen = transcript.survey("logged out")
    assert (seen.version, seen.state, seen.marks) == (transcript.version, "NeedsLogin", frozenset())
    step = compare.move(MEMBER, seen)
    assert step is not None
    assert step.action == "join"


def test_a_member_is_known_by_all_that_it_is(transcript: Transcript) -> None:
    seen = transcript.survey("member with tags and a route")
    assert seen.node is not None
    assert seen.node.version == transcript.version
    assert (seen.node.state, seen.node.name, seen.node.tags) == ("Running", "app-1.tail.skyspan.test", ("tag:web",))
    assert (seen.node.suffix, seen.node.has_key, seen.node.online) == ("tail.skyspan.test", True, True)
    assert seen.node.addresses == ("100.64.0.2", "fd7a:115c:a1e0::2")
    assert (seen.prefs.server, seen.prefs.hostname, seen.prefs.routes) == (MEMBER.server, "app-1", ("10.9.0.0/24",))
    assert (seen.owner, seen.marks, seen.forwarding[4]) == ("default/proof/stage", frozenset({"joined"}), True)
    assert compare.move(MEMBER, seen) is None
    assert [leg.kind for leg in legs_of(MEMBER, seen) if not leg.ok] == [errors.RoutesNotApprovedError]
    other = transcript.survey("another member that was told of the route")
    assert other.peers["app-1.tail.skyspan.test"] == ("10.9.0.0/24",)
    assert all(leg.ok for leg in legs_of(MEMBER, seen, [other]))


def test_a_member_without_tags_has_none(transcript: Transcript) -> None:
    seen = transcript.survey("another member that was told of the route")
    assert seen.node is not None
    assert seen.node.tags == ()


def test_one_that_was_stopped_is_raised_without_a_key(transcript: Transcript) -> None:
    seen = transcript.survey("stopped")
    assert seen.state == "Stopped"
    step = compare.move(MEMBER, seen)
    assert step is not None
    assert (step.action, step.flags, step.needs_key) == ("raise", (), False)


def test_a_logout_that_its_server_did_not_hear_of_is_told_and_repeated_before_joining(transcript: Transcript) -> None:
    assert transcript.said["remove without a server"]["exit"] == 95
    seen = transcript.survey("logged out without its server hearing of it")
    assert seen.node is not None
    assert seen.node.has_key
    step = compare.move(MEMBER, seen)
    assert step is not None
    assert transcript.said["remove"]["exit"] == 0


def test_a_daemon_that_does_not_run_is_started_before_anything_else(transcript: Transcript) -> None:
    seen = transcript.survey("no daemon")
    assert seen.node is None
    assert seen.installed
    assert "failed to connect to local tailscaled" in seen.trouble
    step = compare.move(MEMBER, seen)
    assert step is not None
    assert (step.action, step.needs_key) == ("set", False)


def test_a_ping_is_answered_or_not(transcript: Transcript) -> None:
    assert "pong from db-1" in transcript.said["ping"]["out"]
    assert transcript.said["ping nobody"]["exit"] != 0
    assert transcript.said["ping without a daemon"]["exit"] != 0


def test_no_transcript_holds_a_key(transcript: Transcript) -> None:
    assert "hskey-auth-0" not in json.dumps(transcript.said)
