"""Which libraries the quick verbs may load: what they do not load, nobody waits for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.cli import ROOT, Cli

pytestmark = pytest.mark.integration

NETWORK = {"aiohttp", "asyncssh", "cryptography", "nacl", "pg8000", "ssl"}
HEAVY = NETWORK | {"rich", "sqlalchemy", "alembic", "sqlite3", "asyncio", "moto", "flask", "boto3", "pyroute2"}
OWN = {"skyspan.engine", "skyspan.drivers", "skyspan.store", "skyspan.transports", "skyspan.attempts"}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def loaded(cli: Cli, *arguments: object) -> set[str]:
    """Every module that the command loaded, packages above it included."""
    ran = cli(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert ran.status == 0, ran.err
    return set(re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", ran.err, re.MULTILINE))


def among(modules: set[str], unwanted: set[str]) -> set[str]:
    return {name for name in unwanted if name in modules or any(module.startswith(f"{name}.") for module in modules)}


def test_help_loads_next_to_nothing(cli: Cli) -> None:
    modules = loaded(cli, "--help")
    assert not among(modules, HEAVY | OWN | {"pydantic", "yaml", "skyspan.planning", "skyspan.providers"})


def test_validating_loads_no_database_no_network_and_no_terminal_library(cli: Cli) -> None:
    modules = loaded(cli, "validate", "-f", ROOT / "examples" / "hybrid")
    assert "pydantic" in modules, "the list of modules is the real one"
    assert not among(modules, HEAVY | OWN)


SAY = "stages:\n  say: {uses: connection, with: {template: say}}\n"


def test_validating_opens_the_store_only_for_a_template_that_the_file_does_not_hold(cli: Cli) -> None:
    held = cli.compose(SAY + "connections: {say: {uses: command, with: {run: 'true'}}}\n", "held")
    assert not among(loaded(cli, "validate", "-f", held), HEAVY | OWN)
    assert not cli.home.exists()
    assert cli("connections", "add", "say", "-", stdin="uses: command\nwith: {run: 'true'}").status == 0
    modules = loaded(cli, "validate", "-f", cli.compose(SAY))
    assert "sqlalchemy" in modules
    unwanted = {"aiohttp", "asyncssh", "cryptography", "pg8000", "rich", "alembic"}
    assert not among(modules, unwanted | {"skyspan.transports", "skyspan.drivers"})


def test_status_loads_no_network_and_no_terminal_library(cli: Cli) -> None:
    cli.up(cli.compose("stages:\n  one: {uses: command, with: {run: 'true'}}\n"))
    modules = loaded(cli, "status", "app")
    assert "sqlalchemy" in modules, "the list of modules is the real one"
    unwanted = {"aiohttp", "asyncssh", "rich", "pg8000", "alembic", "moto", "skyspan.transports", "skyspan.drivers"}
    assert not among(modules, unwanted)


def test_a_run_of_commands_here_loads_no_ssh_and_no_http(cli: Cli) -> None:
    app = cli.compose("stages:\n  one: {uses: command, with: {run: 'true'}}\n")
    modules = loaded(cli, "up", "-f", app, "--yes")
    assert not among(modules, {"aiohttp", "asyncssh", "rich", "pg8000", "moto", "skyspan.rehearsal"})
