"""The commands that make containers and networks, as values (pure)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from skyspan.contracts.transport import Command
from skyspan.providers.docker.building import WantedImage
from skyspan.providers.docker.wanted import WantedContainer, WantedNetwork
from skyspan.providers.dockerengine.commands import IN_TEMPORARY, building, script
from skyspan.providers.dockerengine.parse import BUILT, OWNER

_MAKE = r"""
name=$1; shift
IFS= read -r env
printf %s "$env" | base64 -d | d create --env-file /dev/stdin "$@" >/dev/null
"""

_FILL = r"""
base64 -d | d cp - "$name:/"
"""

_START = r"""
d start "$name" >/dev/null
"""


def make_container(words: Sequence[str], one: WantedContainer) -> Command:
    """Make a container, put its files in, join its networks, and start it: the last step, so that one that was cut off
    before never looks finished."""
    joins = "".join(f"d network connect {shlex.join(join)} {shlex.quote(one.name)}\n" for join in one.joins)
    body = _MAKE + (_FILL if one.has_files else "") + joins + _START
    return script(words, body, one.name, *one.argv, stdin=one.given)


def mend_container(words: Sequence[str], name: str, state: str, joins: Sequence[Sequence[str]]) -> Command:
    """Have a container that is there run, in its networks; one that runs but is not well starts anew."""
    body = "".join(f"d network connect {shlex.join(join)} {shlex.quote(name)}\n" for join in joins)
    if state == "paused":
        body += 'd unpause "$1" >/dev/null\n'
    elif state in ("running", "restarting"):
        body += "" if joins else 'd restart "$1" >/dev/null\n'
    else:
        body += 'd start "$1" >/dev/null\n'
    return script(words, body, name)


def make_foundations(
    words: Sequence[str], owner: str, networks: Sequence[WantedNetwork], volumes: Sequence[str]
) -> Command:
    """Make networks and volumes, which the containers need."""
    lines = [f"d network create {shlex.join(one.argv)} >/dev/null" for one in networks]
    label = shlex.quote(f"{OWNER}={owner}")
    lines += [f"d volume create --label {label} {shlex.quote(name)} >/dev/null" for name in volumes]
    return script(words, "\n".join(lines))


def pull(words: Sequence[str], images: Sequence[str]) -> Command:
    """Fetch images."""
    return script(words, 'for image; do d pull -q "$image"; done', *images)


def build(
    words: Sequence[str], owner: str, image: WantedImage, *, context: bytes | None = None, fresh: bool = False
) -> Command:
    """Build an image from its folder, or from `context`, an archive of it, where the command runs elsewhere; with
    `fresh`, the registry is asked for newer images to begin from."""
    root = f"root={shlex.quote(str(image.folder))}" if context is None else "root=$t/context"
    options = [
        "--force-rm",
        "-t",
        image.name,
        "--label",
        f"{BUILT}={owner}",
        *image.argv,
        *(["--pull"] if fresh else []),
    ]
    called = f'd build {shlex.join(options)} -f "$root"/{shlex.quote(image.dockerfile)} "$root"'
    body = f"{IN_TEMPORARY}{'' if context is None else _UNPACK}{root}\n{building(called)}"
    return script(words, body, stdin=context or b"")


_UNPACK = r"""
mkdir -m 755 "$t/context"; tar -xpf - -C "$t/context"
"""
