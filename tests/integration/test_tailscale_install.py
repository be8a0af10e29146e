"""Tailscale put onto a host and taken away again: real apt and dpkg, a signed package source on the host's own wire."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.debian_source import make_source
from tests.support.tailnet import Stage, spec, tools

from skyspan.contracts.transport import Command, Effect
from skyspan.model.change import Action
from skyspan.networks.tailscale import errors
from skyspan.testing.gateway_world import Machine
from skyspan.testing.provider_world import ProviderWorld
from skyspan.testing.tailnet_world import TailnetWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

SOURCE = "http://10.98.0.1:8090"
BARE = "/usr/sbin:/usr/bin:/sbin:/bin"

# Packages are installed into layers of the host's own, over this machine's.
LAYERS = """
umount /var/lib
for place in usr var; do
  mkdir -p /run/$place/upper /run/$place/work
  mount -t overlay -o lowerdir=/$place,upperdir=/run/$place/upper,workdir=/run/$place/work overlay /$place
done
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/*proxy* /var/lib/skyspan
"""

STATE = """
dpkg-query --show --showformat '${db:Status-Abbrev}' tailscale 2>/dev/null || echo none
find /etc/apt /usr/share/keyrings /var/lib/skyspan -mindepth 1 2>/dev/null | sort
ls /usr/bin/tailscale /usr/sbin/tailscaled 2>/dev/null || :
"""


@pytest.fixture
async def tailnet(tmp_path: Path) -> AsyncIterator[TailnetWorld]:
    path = tools()
    made = await TailnetWorld.make_tailnet(LocalTransport({"PATH": path, "LC_ALL": "C"}), ("app-1",), daemons=False)
    try:
        root = tmp_path / "source"
        make_source(root, Path(path.partition(":")[0]), "1.102.3")
        control = made.machines["control"]
        serve = (sys.executable, "-u", "-m", "http.server", "8090", "--bind", "10.98.0.1", "--directory", str(root))
        await made._start(control.here, control.inside(Command(("sh", "-c", 'echo ready; exec "$@"', "sh", *serve))))
        yield made
    finally:
        await made.close()


@pytest.fixture
async def host(tailnet: TailnetWorld) -> Machine:
    """The host, where nothing of ours is on PATH."""
    bare = LocalTransport({"PATH": BARE, "LC_ALL": "C"})
    machine = replace(tailnet.machines["app-1"], here=bare)
    await machine.sh(LAYERS)
    return machine


@pytest.fixture
def stage(tailnet: TailnetWorld, host: Machine, tmp_path: Path) -> Stage:
    return Stage(tailnet, ProviderWorld(tmp_path, {"app-1": host}, hosts=tailnet.hosts))


@pytest.mark.parametrize("method", ["package", "script"])
async def test_it_is_installed_joined_and_taken_away_with_all_its_traces(
    stage: Stage, tailnet: TailnetWorld, host: Machine, method: str
) -> None:
    before = await host.sh(STATE)
    source = SOURCE if method == "package" else f"{SOURCE}/install.sh"
    settings = spec(hosts=["app-1"], install={"method": method, "source": source, "min_version": "1.80"})
    _, change = await stage.look(settings)
    assert [(item.address, item.action) for item in change.resources] == [
        ("app-1: package tailscale", Action.CREATE),
        ("app-1: membership of tail.skyspan.test", Action.CREATE),
    ]
    seen = await stage.up(settings, await tailnet.key())
    assert seen.healthy
    assert seen.outputs["versions"].value == {"app-1": "1.102.3"}
    stage.world.commands.clear()
    assert (await stage.up(settings)).healthy
    assert all(command.effect is Effect.READ for command in stage.world.commands)
    await stage.down(settings)
    assert await host.sh(STATE) == before


async def test_what_cannot_be_fetched_or_is_too_old_is_said_and_leaves_nothing(
    stage: Stage, tailnet: TailnetWorld, host: Machine
) -> None:
    before = await host.sh(STATE)
    missing = spec(hosts=["app-1"], install={"source": "http://10.98.0.1:8091"})
    with pytest.raises(errors.InstallFailedError, match="installing tailscale on app-1") as error:
        await stage.up(missing, await tailnet.key())
    assert "failed while fetching http://10.98.0.1:8091/debian/bookworm.noarmor.gpg" in error.value.detail
    await stage.down(missing)
    assert await host.sh(STATE) == before
    newer = spec(hosts=["app-1"], install={"source": SOURCE, "min_version": "9.9"})
    with pytest.raises(errors.InstallFailedError, match=r"it is 1\.102\.3, and 9.9 is the oldest"):
        await stage.up(newer, await tailnet.key())
    await stage.down(newer)
    assert await host.sh(STATE) == before
    await host.sh("sed -i s/ID=debian/ID=plan9/ /etc/os-release")
    with pytest.raises(errors.UnsupportedOSError, match="it runs plan9"):
        await stage.up(newer, await tailnet.key())
    assert await host.sh(STATE) == before
