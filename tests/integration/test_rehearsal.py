"""`skyspan rehearse run`: the whole cycle with the real command line, its verdicts, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"

WORLD: Mapping[str, Any] = {
    "sites": {"lab": {"prefix": "203.0.113.0/24"}},
    "hosts": {"box": {"site": "lab", "address": "203.0.113.10"}},
    "secrets": {"ssh_key": "generated"},
}
HOSTS = {"box": {"address": "203.0.113.10", "key": "${{ secrets.ssh_key }}"}}
TIDY = {"host": "box", "run": "touch /etc/made", "check": "test -e /etc/made", "destroy": "rm -f /etc/made"}

TROUBLE = {"name": "lost", "host": "box", "run": "rm /etc/made", "stage": "make", "named": "exited with status 1"}


def composition(folder: Path, stage: Mapping[str, Any], **parts: Any) -> Path:
    document = {"skyspan": 1, "name": "tiny", "hosts": HOSTS, "stages": {"make": {"uses": "command", "with": stage}}}
    (folder / "skyspan.yaml").write_text(json.dumps({**document, "rehearsal": WORLD, **parts}))
    return folder


def skyspan(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "skyspan", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=600, **more)


def rehearse(folder: Path) -> tuple[int, dict[str, Any]]:
    done = skyspan("--json", "rehearse", "run", "-f", str(folder))
    assert "steps" in done.stdout, (done.stdout, done.stderr)
    return done.returncode, json.loads(done.stdout)


def test_a_tidy_composition_passes_every_step_and_is_repaired_without_touching_what_is_well(tmp_path: Path) -> None:
    other = {name: line.replace("made", "other") for name, line in TIDY.items()}
    spare = {"uses": "command", "with": other, "if": "${{ inputs.spare }}"}
    stages = {"make": {"uses": "command", "with": TIDY}, "other": {"uses": "command", "with": other}, "spare": spare}
    troubles = [{**TROUBLE, "name": "never", "stage": "spare"}, {**TROUBLE, "keeps": "stat -c '%Y %i' /etc/other"}]
    parts = {"rehearsal": {**WORLD, "trouble": troubles}, "inputs": {"spare": {"type": "bool", "default": False}}}
    status, report = rehearse(composition(tmp_path, TIDY, **{"stages": stages, **parts}))
    steps = {step["name"]: step for step in report["steps"]}
    assert all(step["verdict"] == "passed" for step in steps.values()), steps
    assert list(steps)[:6] == ["up", "again", "check", "stop", "start", "recheck"]
    assert list(steps)[6:] == ["lost", "lost/check", "lost/up", "lost/recheck", "destroy", "proof"]
    assert steps["again"]["stages"] == {"make": "unchanged", "other": "unchanged", "spare": "skipped"}
    assert steps["lost/check"]["stages"] == {"make": "failed", "other": "succeeded"}
    assert "exited with status 1" in steps["lost/check"]["figures"]["named"]
    assert steps["lost/up"]["stages"] == {"make": "succeeded", "other": "unchanged", "spare": "skipped"}
    assert steps["lost/up"]["figures"]["changed"] == ["make"]
    assert 0 < steps["lost/check"]["figures"]["told_s"] < steps["lost/up"]["figures"]["repaired_s"]
    assert (status, report["passed"], report["leftovers"]) == (0, True, [])
    assert not Path("/etc/made").exists()


@pytest.mark.parametrize(
    ("run", "failed", "complaint"),
    [
        ("true", "lost/check", "nobody noticed: `skyspan check` finds nothing wrong with the stage make"),
        ("rm /etc/made; mkdir /etc/made", "lost/up", "not repaired: `skyspan up` ended with 1"),
    ],
)
def test_a_trouble_that_nobody_notices_or_repairs_fails_the_rehearsal(
    tmp_path: Path, run: str, failed: str, complaint: str
) -> None:
    world = {**WORLD, "trouble": [{**TROUBLE, "run": run, "within": "1s"}]}
    stage = {**TIDY, "run": "test ! -d /etc/made && touch /etc/made", "check": "test -f /etc/made"}
    status, report = rehearse(composition(tmp_path, {**stage, "destroy": "rm -rf /etc/made"}, rehearsal=world))
    steps = {step["name"]: step for step in report["steps"]}
    assert (status, steps[failed]["verdict"], steps["lost/recheck"]["verdict"]) == (1, "failed", "skipped")
    assert complaint in steps[failed]["detail"]
    assert (steps["destroy"]["verdict"], report["leftovers"]) == ("passed", [])


def test_the_example_of_a_tailnet_passes_every_step_with_a_real_headscale() -> None:
    """25 seconds of two cores: two tailscaled join, are left alone, stop, start, leave, and are forgotten."""
    status, report = rehearse(EXAMPLES / "tailnet")
    verdicts = {step["name"]: (step["verdict"], step["detail"]) for step in report["steps"]}
    assert all(verdict == "passed" for verdict, _ in verdicts.values()), verdicts
    assert (status, report["leftovers"]) == (0, [])


@pytest.mark.timeout(600)
def test_the_example_of_a_vpn_that_aws_manages_passes_every_step() -> None:
    """Real Terraform and the AWS provider, which waits 10 s after it made and unmade each; then strongSwan on both
    sides, with the keys and addresses that the provider read, and BGP through both tunnels."""
    status, report = rehearse(EXAMPLES / "aws-vpn")
    verdicts = {step["name"]: (step["verdict"], step["detail"]) for step in report["steps"]}
    assert all(verdict == "passed" for verdict, _ in verdicts.values()), verdicts
    assert (status, report["leftovers"]) == (0, [])


def test_what_a_destroy_forgets_is_found_a_file_as_well_as_a_member_or_a_container(tmp_path: Path) -> None:
    make = r"""
        touch /etc/made
        cd /var/cache/headscale
        key=$(headscale -c config.yaml preauthkeys create --user 1 -o json | sed -n 's/.*"key": *"\([^"]*\)".*/\1/p')
        tailscale up --login-server=http://10.98.0.2:8080 "--auth-key=$key" --accept-dns=false --timeout=20s
        docker network create gone; docker network create stays
        docker run -d --name left --network stays tiny:1 sleep 999
        curl -sf -X POST -d '{"name": "box"}' http://127.0.0.1:8000/api/dcim/devices/
    """
    services = {
        "server": {"kind": "headscale"},
        "client": {"kind": "tailscaled"},
        "docker": {"kind": "docker", "images": {"tiny:1": "busybox"}},
        "api": {"kind": "inventory"},
    }
    world = {
        "sites": {"lab": {"prefix": "10.98.0.0/24"}},
        "hosts": {"box": {"site": "lab", "address": "10.98.0.2", "services": services}},
        "secrets": {"ssh_key": "generated"},
    }
    hosts = {"box": {"address": "10.98.0.2", "key": "${{ secrets.ssh_key }}"}}
    stage = {"host": "box", "run": make, "check": "tailscale status", "destroy": "docker network rm gone"}
    status, report = rehearse(composition(tmp_path, stage, rehearsal=world, hosts=hosts))
    assert report["steps"][0]["verdict"] == "passed", report["steps"][0]
    assert (status, report["passed"]) == (1, False)
    assert "tailnet: left behind: member box" in report["leftovers"]
    (file,) = (left for left in report["leftovers"] if left.endswith("/etc/made"))
    assert file.startswith("box: left behind: file ")
    assert "box: left behind: container left of tiny:1" in report["leftovers"]
    assert "box: left behind: row /api/dcim/devices/1 box" in report["leftovers"]
    networks = [left for left in report["leftovers"] if left.startswith("box: left behind: network ")]
    assert [line.split()[4] for line in networks] == ["stays"]


def test_a_stage_that_never_settles_fails_and_is_destroyed_all_the_same(tmp_path: Path) -> None:
    status, report = rehearse(composition(tmp_path, {**TIDY, "check": "false"}))
    verdicts = {step["name"]: step["verdict"] for step in report["steps"]}
    assert status == 1
    assert verdicts["stop"] == "skipped"
    assert verdicts["destroy"] == "passed"
    assert report["leftovers"] == []


def test_a_mistake_in_the_stand_ins_is_shown_with_its_place(tmp_path: Path) -> None:
    folder = composition(tmp_path, TIDY, rehearsal=None)
    lab = "sites:\n  lab: {prefix: 203.0.113.0/24}\n"
    (folder / "rehearsal.yaml").write_text(f"{lab}hosts:\n  box: {{sight: lab}}\n")
    done = skyspan("rehearse", "run", "-f", str(folder))
    assert done.returncode == 2
    assert "rehearsal.yaml:4:" in done.stderr
    assert "sight" in done.stderr
    trouble = "trouble:\n  - {name: one, fault: reboot moon, stage: mark, named: box}\n"
    (folder / "rehearsal.yaml").write_text(lab + trouble)
    done = skyspan("rehearse", "run", "-f", str(folder))
    assert done.returncode == 2
    assert "rehearsal.yaml:4:24: error: there is no stand-in moon" in done.stderr
    assert "rehearsal.yaml:4:44: error: there is no stage mark" in done.stderr
    assert "did you mean make?" in done.stderr


def test_a_composition_without_stand_ins_is_told_what_to_write(tmp_path: Path) -> None:
    done = skyspan("rehearse", "exec", "-f", str(composition(tmp_path, TIDY, rehearsal=None)), "--", "true")
    assert done.returncode == 2
    assert "rehearsal.yaml" in done.stderr


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    from skyspan.model.error import ToolMissingError
    from skyspan.rehearsal.isolation import namespaces

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(namespaces, "SBIN", str(tmp_path))
        with pytest.raises(ToolMissingError) as refused:
            namespaces.require(str(tmp_path))
    assert "apt-get install iproute2 nftables util-linux openssh-server openssh-client" in refused.value.hint


def test_without_root_it_says_so(tmp_path: Path) -> None:
    folder = composition(tmp_path, TIDY)
    code = (
        "import os; os.setresuid(65534, 65534, 65534)\n"
        "from skyspan.model.error import UsageError\n"
        "from skyspan.rehearsal.isolation.namespaces import require\n"
        "try: require(os.environ['PATH'])\n"
        "except UsageError as error: print(error)\n"
    )
    # The modules are imported as root: an unprivileged user may not be able to read them where they are.
    code = "import skyspan.rehearsal.isolation.namespaces, skyspan.model.error\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), timeout=60
    )
    assert "a rehearsal needs root" in done.stdout, done.stderr
    assert folder.is_dir()
