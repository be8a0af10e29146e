"""What tests with real tools ask for by name: for all of a module a Docker daemon, or gateways with a link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.support.bgp_rig import Joined, joined
from tests.support.dockerhost import ENV, DockerHost

from skyspan.transports.local import LocalTransport


@pytest.fixture(scope="module")
def daemon() -> Iterator[DockerHost]:
    """A daemon of the module's own."""
    host = DockerHost.start()
    yield host
    host.close()


@pytest.fixture
async def here(daemon: DockerHost) -> AsyncIterator[LocalTransport]:
    """This machine, with nothing on the daemon."""
    daemon.clear()
    transport = LocalTransport(ENV)
    yield transport
    await transport.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_link(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Joined]:
    """Gateways joined by WireGuard, for all tests of a module: each gives back what it found."""
    async with joined(tmp_path_factory.mktemp("link")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_linked(shared_link: Joined) -> dict[str, str]:
    """The state of these gateways before anything was done over their link."""
    return await shared_link.sites.state()
