"""Which of a topology's `exec` commands did not come to their end because something stopped them, as containerlab tells
it: it goes on without them; pure.

A router's own start may do that: FRR's stops what has a process number that it kept from before a restart
(tools/frrcommon.sh.in, `daemon_stop`), and in a container these are soon taken again.
"""

from __future__ import annotations

import json
import re
import shlex
import signal

from skyspan.providers.containerlab.topology import Topology, spelled_out

STOPPED = frozenset(128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
"""The exit statuses of a command that was stopped, as Docker and shells tell them: what it was to do may be undone."""

_FAILED = re.compile(r'Failed to execute command command=("(?:[^"\\]|\\.)*"|\S+) node=(\S+) rc=(\d+)')
"""containerlab 0.79, exec/exec.go."""


def argv_of(line: str, node: str, folder: str) -> tuple[str, ...]:
    """A line of `exec` as containerlab runs it in `node`; `folder` is what it makes beside the topology."""
    return tuple(shlex.split(spelled_out(line, node, folder)))


def stopped_commands(said: str, topology: Topology, folder: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The topology's own commands, each with its node before it, that were stopped by what containerlab said."""
    told = {(node, _plain(command)) for command, node, status in _FAILED.findall(said) if int(status) in STOPPED}
    own = ((node.name, argv_of(line, node.name, folder)) for node in topology.nodes for line in node.exec)
    return tuple((node, argv) for node, argv in own if (node, " ".join(argv)) in told)


def _plain(command: str) -> str:
    if not command.startswith('"'):
        return command
    try:
        return str(json.loads(command))
    except ValueError:  # Go's quoting knows escapes that JSON has not
        return command[1:-1]
