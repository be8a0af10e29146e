"""What can be said about Docker before a run, from the settings that are known already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skyspan.contracts.context import ReadContext
from skyspan.model.diagnostic import Diagnostic, Position, Severity


def findings(settings: Mapping[str, Any], ctx: ReadContext) -> Iterator[Diagnostic]:
    """The docker command on this machine, where it runs here; and a daemon that anybody may ask."""
    if settings.get("host") is None and ctx.tools.find("docker") is None:
        yield Diagnostic(
            "missing-tool",
            "there is no docker command on this machine",
            Position(""),
            hint="install Docker (Debian and Ubuntu: apt-get install docker.io)",
        )
    engine = settings.get("engine")
    given = engine if isinstance(engine, Mapping) else {}
    endpoint = given.get("endpoint")
    if isinstance(endpoint, str) and endpoint.startswith("tcp:") and not given.get("ca"):
        yield Diagnostic(
            "open-daemon",
            f"the Docker daemon at {endpoint} is asked without TLS: whoever reaches it is root there",
            Position(""),
            Severity.WARNING,
            hint="let it listen with --tlsverify, and give `ca`, `certificate` and `key`",
        )
