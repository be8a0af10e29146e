"""The images that Docker hosts among the stand-ins have from the start: where each comes from, without any registry."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from skyspan.model.error import ToolMissingError, UsageError

NODE, BUSYBOX = "node", "busybox"
"""The sources that are not files of the composition's."""

NODE_FILE = "node.tar"
"""What `tools/image` leaves in its folder."""

_NODE_COMMAND = 'CMD ["/sbin/node-start"]'
_SHELL = 'CMD ["/bin/sh"]'

_APPLETS = (
    *("arp", "awk", "cat", "chmod", "cut", "date", "dd", "echo", "env", "expr", "false", "find", "free", "grep"),
    *("head", "hostname", "httpd", "id", "ifconfig", "ip", "kill", "ln", "ls", "mkdir", "mount", "nc", "netstat"),
    *("nslookup", "ping", "ping6", "ps", "pwd", "rm", "route", "sed", "sh", "sleep", "sort", "stat", "sysctl"),
    *("tail", "tee", "telnet", "telnetd", "test", "timeout", "top", "touch", "tr", "traceroute", "true", "udhcpc"),
    *("umount", "uname", "vi", "wc", "wget", "xargs", "["),
)
"""What a shell in a small container is expected to find."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar: a root file system, and the instructions (of a Dockerfile) that make it an image; without any of these
    what `docker save` wrote."""

    file: Path
    instructions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where images come from: `folder` is the composition's, `made` are folders with images made beforehand, `scratch`
    is where one may be written, `path` where programs are found; `keys` are who may log in to a node."""

    folder: Path
    made: tuple[Path, ...]
    scratch: Path
    path: str
    keys: tuple[str, ...]


def archives(names: Iterable[str], sources: Sources) -> dict[str, Archive]:
    """The archive of each name of a source.

    Raises ToolMissingError or UsageError saying how to get what is not there.
    """
    found = {}
    for name in names:
        if name == NODE:
            keys = f'ENV AUTHORIZED_KEYS="{";".join(sources.keys)}"'
            found[name] = Archive(_node(sources.made), (_NODE_COMMAND, keys))
        elif name == BUSYBOX:
            sources.scratch.mkdir(parents=True, exist_ok=True)
            (sources.scratch / "busybox.tar").write_bytes(busybox(sources.path))
            found[name] = Archive(sources.scratch / "busybox.tar", (_SHELL,))
        else:
            found[name] = _given(sources.folder / name)
    return found


def busybox(path: str) -> bytes:
    """A root file system with nothing but Busybox, as a tar; raises ToolMissingError, also for one that needs more."""
    program = shutil.which(BUSYBOX, path=path)
    if program is None or b"/ld-linux" in (content := Path(program).read_bytes()):
        raise ToolMissingError(
            "the image `busybox` needs a static busybox" + (f", which {program} is not" if program else ""),
            hint="on Debian: apt-get install busybox-static",
        )
    told = io.BytesIO()
    with tarfile.open(fileobj=told, mode="w") as archive:
        for folder, mode in {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "www": 0o755}.items():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for applet in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, BUSYBOX
            archive.addfile(entry)
        texts = {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/group": b"root:x:0:\n", "bin/busybox": content}
        for name, text in texts.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755 if name.startswith("bin/") else 0o644
            archive.addfile(entry, io.BytesIO(text))
    return told.getvalue()


def _node(made: tuple[Path, ...]) -> Path:
    for folder in made:
        if (folder / NODE_FILE).is_file():
            return folder / NODE_FILE
    raise ToolMissingError(
        "the image `node` has not been made",
        detail=f"looked for {NODE_FILE} in {', '.join(map(str, made)) or 'no folder'}",
        hint="in a checkout: tools/image; or name a tar of your own (`docker save IMAGE -o node.tar`) in its place",
    )


def _given(file: Path) -> Archive:
    try:
        with tarfile.open(file) as archive:
            saved = any(name in archive.getnames() for name in ("manifest.json", "./manifest.json"))
    except FileNotFoundError:
        raise UsageError(
            f"there is no image {file}", hint=f"name a tar beside the composition, `{NODE}` or `{BUSYBOX}`"
        ) from None
    except (OSError, tarfile.TarError) as error:
        raise UsageError(
            f"the image {file} cannot be read: {error}", hint="it has to be a tar: `docker save`, or a root file system"
        ) from None
    return Archive(file, () if saved else (_SHELL,))
