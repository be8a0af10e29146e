"""What tests of containers ask for by name: a Docker daemon for all of a module, and this machine's commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
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
