"""Errors out of what netlab, containerlab and Docker said last, with what to do about it: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from skyspan.contracts.transport import Completed
from skyspan.model.error import CredentialsError, SpecError, StageError, ToolFailedError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.providers.lab.containers import docker_trouble
from skyspan.providers.masking import mask_secrets
from skyspan.providers.netlab.parse import Survey

OLDEST = (25, 9)
"""The oldest netlab whose data model is read here; containerlab's oldest is netlab's own matter."""

_TOPOLOGY_ERROR = re.compile(
    r"^(?:Incorrect\w+|Missing\w+|FatalError|UserWarning) in (?P<what>.+)$",
    re.MULTILINE,
)
_FATAL = re.compile(r"^Fatal error in (?P<what>[^:]+: .+)$", re.MULTILINE)
_NOISE = re.compile(r"^(\d\d:\d\d:\d\d (INFO|WARN)|[╭├╰│]|\[1m|Warning(:| in)|OK: |$)")
_CRASH = re.compile(r"^Traceback \(most recent call last\)", re.MULTILINE)
_NODE_FAILED = re.compile(r"configuration .*failed for node (?P<node>\S+)")
_NO_IMAGE = re.compile(
    r"(?:pull access denied for |[Nn]o such image: |manifest for |Failed to pull image image=|"
    r'Container (?=\S+ used by))"?(?:docker\.io/(?:library/)?)?(?P<image>[^\s",]+)'
)
_NO_INTERFACE = re.compile(
    r"ip link add [^\n]*\btype (?P<kind>\w+)[^\n]*\n[^\n]*(?:Unknown device type|Operation not supported)"
)
_MODULES: Mapping[str, str] = MappingProxyType({"vlan": "8021q"})
"""Kinds of interfaces whose kernel module is called otherwise."""

_NOT_ROOT = ("a password is required", "sudo: not found", "not a member of the clab_admins group")
_RESTRICTED = (
    ("unable to apply caps", "the containers' host gives no full privileges"),
    ("/proc/modules", "the host's kernel loads no modules"),
    ("Cannot load Linux kernel module", "the host's kernel lacks a module that netlab loads"),
    ("deploy links: operation not supported", "the host's kernel lacks a kind of interface (dummy, for stub links)"),
)


def refuse_tools(survey: Survey, where: str, program: str, *, external: bool) -> None:
    """Raise ToolMissingError for what the host lacks."""
    needed = (program, "flock", "ansible-playbook") if external else (program, "flock", "containerlab", "docker")
    missing = [tool for tool in needed if tool in survey.missing]
    if missing:
        hints = {
            program: "netlab: `pip install networklab` (netlab.tools), in an environment whose programs are on PATH",
            "containerlab": "containerlab 0.75 or later: containerlab.dev/install",
            "docker": "Docker Engine: `apt-get install docker.io`",
            "ansible-playbook": "Ansible: `apt-get install ansible`",
            "flock": "`apt-get install util-linux`",
        }
        raise ToolMissingError(f"{where} lacks {', '.join(missing)}", hint="; ".join(hints[tool] for tool in missing))
    if version_of(survey.version) < OLDEST:
        raise ToolMissingError(
            f"netlab on {where} is {survey.version or 'of an unknown version'}: too old",
            hint=f"{'.'.join(f'{part:02}' for part in OLDEST)} or later: `pip install --upgrade networklab`",
        )


def version_of(text: str) -> tuple[int, ...]:
    """A version as numbers: `26.10.post1` is (26, 10)."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else ()


def new_version(made_by: str, found: str, where: str) -> StageError:
    """The host's netlab is not the one that made the lab."""
    return ToolMissingError(
        f"the lab was made by netlab {made_by}, but {where} has {found or 'none'} now",
        detail="a snapshot of one version cannot be trusted to another",
        hint=f"install networklab=={made_by} again, or set `new_version: recreate` to have the lab made anew",
    )


def no_image(images: Sequence[str], where: str, words: str = "") -> StageError:
    """The host lacks images that nodes run."""
    return SpecError(
        f"{where} has no image {', '.join(images)}",
        detail=words,
        hint=f"`docker load` it there; or name another, `images: {{{images[0]}: …}}`; or fetch it, `pull: true`",
    )


def failed(
    done: Completed, what: str, where: str, topology: str, folder: str, secrets: Iterable[Secret] = ()
) -> StageError:
    """The error for a command that failed. `topology` is what the composition calls the topology, `folder` where
    everything of the lab is."""
    secrets = tuple(secrets)
    said = mask_secrets((done.stderr + b"\n" + done.stdout).decode(errors="replace"), secrets)
    said = re.sub(rf"{re.escape(folder)}/(?:files|lab)/|/\S*/skyspan\.\w{{8}}/lab/", "", said)
    words = last_words(said)
    if any(text in said for text in _NOT_ROOT):
        return CredentialsError(
            f"{what} on {where} needs root",
            detail=words,
            hint=f"log in as root, or let the user run sudo without a password on {where}",
        )
    if done.exit_code == 127:
        return ToolMissingError(f"netlab cannot be run on {where}", detail=words, hint="is it on the PATH there?")
    for text, reason in _RESTRICTED:
        if text in said:
            return ToolFailedError(f"{what} on {where} failed: {reason}", detail=words, hint="set `restricted: true`")
    image = _NO_IMAGE.search(said)
    if image:
        return no_image([image["image"].rstrip(".:'")], where, words)
    if "ool overlaps with other one" in said or ("address space" in said and "overlap" in said):
        return SpecError(
            f"the lab's management network overlaps another one on {where}",
            detail=words,
            hint="leave `management` out, or choose another",
        )
    if "Containerlab version is too old" in said or "Ansible is too old" in said:
        return ToolMissingError(f"containerlab on {where} is too old for its netlab", detail=words, hint="update it")
    if any(text in said for text in ("Cannot connect to the Docker daemon", "no space left on device")):
        return docker_trouble(Completed(done.exit_code, stderr=words.encode(), timed_out=done.timed_out), where, what)
    nodes = list(dict.fromkeys(found["node"] for found in _NODE_FAILED.finditer(said)))
    lacking = _NO_INTERFACE.search(said)
    if nodes and lacking:
        kind = lacking["kind"]
        return ToolFailedError(
            f"configuring {', '.join(nodes)} failed: the kernel of {where} has no interfaces of type {kind}",
            detail=words,
            hint=f"load its module there (`modprobe {_MODULES.get(kind, kind)}`), or run the lab on another host",
        )
    if nodes:
        return ToolFailedError(
            f"configuring {', '.join(nodes)} failed",
            detail=words,
            hint="the image lacks what netlab's scripts need there (bash, ip, sysctl, vtysh), or cannot set sysctls",
        )
    found = [match["what"].strip() for match in _TOPOLOGY_ERROR.finditer(said)]
    fatal = [match["what"].strip() for match in _FATAL.finditer(said)]
    if what.startswith("creating") and (found or fatal) and not _CRASH.search(said):
        first = (found or fatal)[0]
        return SpecError(f"{topology}: {first}", detail=words, hint="netlab's words; `netlab create` says the same")
    ended = "took too long" if done.timed_out else f"failed (exit status {done.exit_code})"
    return ToolFailedError(f"{what} on {where} {ended}", detail=words)


def last_words(text: str, lines: int = 15) -> str:
    """The last lines that say something: progress, tables and repeated warnings left out."""
    said = [line.rstrip() for line in text.splitlines() if not _NOISE.match(line.strip())]
    said = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in said if line.strip()]
    if any(line.startswith("Traceback") for line in said):
        return "\n".join(said[-3:])
    return "\n".join(said[-lines:])
