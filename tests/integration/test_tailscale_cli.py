"""A tailnet by the command line: the key from the environment, over real SSH, and the names in a later stage."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.tailnet import tools

import skyspan
from skyspan.contracts.transport import Command
from skyspan.testing.tailnet_world import DOMAIN, SERVER, TailnetWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

SSHD = """
mkdir -p /run/sshd
/usr/sbin/sshd -f /dev/null -h "$1" -o AuthorizedKeysFile="$2" -o StrictModes=no -o PidFile=none \\
  -o UsePAM=no -o PermitRootLogin=yes -o SetEnv="PATH=$PATH"
"""

COMPOSITION = """\
skyspan: 1
name: tailnet
hosts:
  app-1: {{address: 10.98.0.2, key_file: client, host_key: "{host_key}", roles: [web]}}
stages:
  note:
    uses: command
    with: {{run: "echo ${{{{ hosts.app-1.fqdn }}}} > {note}", destroy: "rm -f {note}"}}
  mesh:
    uses: tailscale
    with:
      hosts: [app-1]
      tailnet_domain: {domain}
      login_server: {server}
      role_tags: {{web: [tag:web]}}
      accept_dns: false
      install: {{method: none}}
"""


@dataclass
class Seat:
    """Where a person sits: on the server's machine, with the command line and a composition."""

    world: TailnetWorld
    folder: Path

    async def skyspan(self, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, Any, str]:
        """Exit status, the JSON document, and what was said beside it."""
        control = self.world.machines["control"]
        argv = (sys.executable, "-m", "skyspan", "--home", str(self.folder / "home"), "--json", *arguments)
        argv += ("-f", str(self.folder)) if arguments[0] != "destroy" else ()
        set_to = {"PYTHONPATH": str(Path(skyspan.__file__).parents[1]), "HOME": str(self.folder), **(env or {})}
        done = await control.run(Command(argv, env=set_to, timeout_s=120))
        said = done.stderr.decode(errors="replace")
        return done.exit_code, json.loads(done.stdout) if done.stdout.strip() else None, said


@pytest.fixture
async def seat(tmp_path: Path) -> AsyncIterator[Seat]:
    here = LocalTransport({"PATH": tools(), "LC_ALL": "C.UTF-8"})
    world = await TailnetWorld.make_tailnet(here, ("app-1",))
    try:
        for name in ("client", "server"):
            command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(tmp_path / name))
            subprocess.run(command, check=True)
        await world.machines["app-1"].sh(SSHD, str(tmp_path / "server"), str(tmp_path / "client.pub"))
        host_key = (tmp_path / "server.pub").read_text().strip()
        text = COMPOSITION.format(host_key=host_key, note=tmp_path / "note", domain=DOMAIN, server=SERVER)
        (tmp_path / "skyspan.yaml").write_text(text)
        yield Seat(world, tmp_path)
    finally:
        await world.close()


async def test_the_key_comes_from_the_environment_once_and_the_name_reaches_a_later_stage(seat: Seat) -> None:
    key = await seat.world.key("--tags", "tag:web", "--reusable", "-e", "1h")
    status, plan, said = await seat.skyspan("plan")
    assert status == 0, said
    planned = {stage["name"]: (stage["change"], stage["unknown"]) for stage in plan["stages"]}
    assert planned == {"mesh": ("create", []), "note": ("create", [])}, "the name is known before anybody has joined"

    status, _, said = await seat.skyspan("up", "--yes")
    assert status == 1
    assert "TS_AUTHKEY is not set" in said

    status, document, said = await seat.skyspan("up", "--yes", env={"TS_AUTHKEY": key})
    assert status == 0, said
    assert {stage["name"]: stage["status"] for stage in document["stages"]} == {
        "mesh": "succeeded",
        "note": "succeeded",
    }
    assert (seat.folder / "note").read_text() == f"app-1.{DOMAIN}\n"

    status, document, said = await seat.skyspan("up", "--yes")
    assert status == 0, said
    assert {stage["status"] for stage in document["stages"]} == {"unchanged"}

    status, _, said = await seat.skyspan("destroy", "tailnet", "--yes")
    assert status == 0, said
    assert (await seat.world.status("app-1"))["BackendState"] == "NeedsLogin"
    # Nothing that was written anywhere holds the key.
    secret = key[-40:].encode()
    holding = [path for path in (seat.folder / "home").rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert not holding
    assert not await seat.world.machines["app-1"].sh('grep -rlF -e "$1" /run /var/lib /etc 2>/dev/null || :', key)
