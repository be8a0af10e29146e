"""How Compose is asked, as values: scripts in which `c` is Compose, whichever of its two shapes is there (pure)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skyspan.contracts.transport import Command, Effect
from skyspan.model.secret import Secret
from skyspan.providers.compose.bundle import INLINE, OVERRIDE, Bundle
from skyspan.providers.compose.spec import ComposeSpec
from skyspan.providers.dockerengine.commands import IN_TEMPORARY, building, script

TAKEN = 96
"""Exit status of `up` when the project's folder on the host is another stage's."""

NO_COMPOSE = 98
"""Exit status of every script here where there is no Compose."""

OLD_COMPOSE = 99
"""Exit status of every script here where there is only one that is too old; its version is on standard error."""

CONFIG_TIMEOUT_S = 60.0

_UNPACK = r"""
base64 -d | tar -xpf - -C "$t"
"""

_PLACE = r"""
if [ "$(id -u)" = 0 ]; then store=/var/lib/skyspan; else store=${XDG_STATE_HOME:-$HOME/.local/state}/skyspan; fi
dir=$store/compose/$project
"""

_SHIPPED = r"""
mkdir -p "$store/compose"
if [ -e "$dir.owner" ] && [ "$(cat "$dir.owner")" != "$owner" ]; then cat "$dir.owner" >&2; exit 96; fi
printf '%s\n' "$owner" > "$dir.owner"
mkdir -p "$dir"
base64 -d > "$t/tar"
tar -tf "$t/tar" > "$t/names"
# What went with an earlier apply and is no part of this one goes; what services wrote beside it stays.
cat "$t/names" >> "$dir.files"
while read -r name; do
  case $name in */) ;; *) grep -qxF -e "$name" "$t/names" || rm -f "$dir/$name";; esac
done < "$dir.files"
tar -xpf "$t/tar" -C "$dir"
rm "$t/tar"
# What Skyspan wrote itself may hold secrets, and is needed no longer than Compose reads it: no build may find it.
for name in .skyspan-inline.json .skyspan-override.json; do
  if [ -e "$dir/$name" ]; then mv "$dir/$name" "$t/"; fi
done
cat "$t/names" > "$dir.new"
mv -f "$dir.new" "$dir.files"
"""

_UNSHIP = r"""
if ! [ -e "$dir.owner" ] || [ "$(cat "$dir.owner")" != "$owner" ]; then exit 0; fi
if [ "$all" = yes ]; then rm -rf "$dir"
elif [ -e "$dir.files" ]; then
  while read -r name; do case $name in */) ;; *) rm -f "$dir/$name";; esac; done < "$dir.files"
  sort -r "$dir.files" | while read -r name; do
    case $name in */) rmdir "$dir/$name" 2>/dev/null || :;; esac
  done
fi
rm -f "$dir.files" "$dir.new" "$dir.owner"
rmdir "$dir" "$store/compose" "$store" 2>/dev/null || :
"""


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of: a project by its name and files, with the options of the docker command.

    `remote` when the files are to go to a host; otherwise they are read where they are. `shape` is that of Compose,
    when it is known: `plugin` or `alone`.
    """

    words: tuple[str, ...]
    project: str
    owner: str
    spec: ComposeSpec
    remote: bool
    shape: str = ""

    @property
    def env(self) -> Mapping[str, str | Secret]:
        """The variables of the files."""
        return self.spec.variables


def config(call: Call, files: Bundle) -> Command:
    """Print what Compose makes of the files, after a line with the folder that they are in."""
    root = "root=$t" if call.remote else f"root={shlex.quote(str(files.folder))}"
    lines = [
        _found(call.words),
        IN_TEMPORARY + _UNPACK,
        root,
        'printf \'%s %s\\n\' "$shape" "$root"',
        f"{_called(call, files)} config --format json {shlex.join(call.spec.services)}",
    ]
    given = files.packed({}, ship=call.remote, contexts=False)
    body = "\n".join(lines)
    return script(call.words, body, effect=Effect.READ, stdin=given, env=call.env, timeout_s=CONFIG_TIMEOUT_S)


def up(
    call: Call, files: Bundle, override: Secret, wait_s: float | None, timeout_s: float, *, build: bool = False
) -> Command:
    """Make the project what its files say. `wait_s` lets Compose wait so long until all is up; with `build`, it builds
    the images that are built, also those that are there."""
    root = "root=$dir" if call.remote else f"root={shlex.quote(str(files.folder))}"
    options = ["--detach", "--remove-orphans"]
    options += ["--wait", "--wait-timeout", f"{max(wait_s, 1):.0f}"] if wait_s is not None else []
    options += ["--build"] if build else []
    options += ["--pull", call.spec.pull] if call.spec.pull != "missing" else []
    for name, number in sorted(call.spec.scale.items()):
        options += ["--scale", f"{name}={number}"]
    called = f"{_called(call, files, override=True)} up {shlex.join([*options, *call.spec.services])}"
    lines = [
        _names(call),
        _found(call.words, call.shape),
        IN_TEMPORARY + (_PLACE + _SHIPPED if call.remote else _UNPACK),
        root,
        building(called) if build else called,
    ]
    given = files.packed({OVERRIDE: override}, ship=call.remote)
    return script(call.words, "\n".join(lines), stdin=given, env=call.env, timeout_s=timeout_s)


def down(words: Sequence[str], project: str, *, volumes: bool) -> Command:
    """Stop and remove a project in the order of its dependencies, from what the daemon knows of it."""
    more = " --volumes" if volumes else ""
    return script(words, f"{_found(words)}\nc -p {shlex.quote(project)} down --remove-orphans{more}")


def stop(words: Sequence[str], project: str) -> Command:
    """Stop a project in the order of its dependencies."""
    return script(words, f"{_found(words)}\nc -p {shlex.quote(project)} stop")


def unship(project: str, owner: str, *, everything: bool) -> Command:
    """Remove the files that went to a host; with `everything`, what services wrote beside them too."""
    argv = ("sh", "-euc", f"project=$1 owner=$2 all=$3\n{_PLACE}{_UNSHIP}", "skyspan", project, owner)
    return Command((*argv, "yes" if everything else "no"), stdin=b"")


def _names(call: Call) -> str:
    return f"project={shlex.quote(call.project)} owner={shlex.quote(call.owner)}"


def _found(words: Sequence[str], shape: str = "") -> str:
    """Define `c`: the plugin of the docker command, or the command of its own that Compose 2 also is."""
    alone = shlex.join(["docker-compose", *words])
    if shape:
        return f'c() {{ {"d compose" if shape == "plugin" else alone} "$@"; }}'
    return f"""
if version=$(d compose version --short 2>/dev/null); then shape=plugin; c() {{ d compose "$@"; }}
elif command -v docker-compose >/dev/null 2>&1; then
  version=$(docker-compose version --short); shape=alone; c() {{ {alone} "$@"; }}
else exit {NO_COMPOSE}; fi
case ${{version#v}} in 0.*|1.*) echo "$version" >&2; exit {OLD_COMPOSE};; esac
"""


def _called(call: Call, files: Bundle, *, override: bool = False) -> str:
    """`c` with the project's name, its folder and its files."""
    parts = ["c", "-p", shlex.quote(call.project), "--project-directory", _inside(files.base)]
    for name in files.files:
        parts += ["-f", _inside(name)]
    if files.inline is not None:
        parts += ["-f", f'"$t"/{INLINE}']
    if override:
        parts += ["-f", f'"$t"/{OVERRIDE}']
    for profile in call.spec.profiles:
        parts += ["--profile", shlex.quote(profile)]
    return " ".join(parts)


def _inside(path: str) -> str:
    return f'"$root"/{shlex.quote(path)}' if path else '"$root"'
