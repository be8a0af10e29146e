"""What must be in no file of the repository: traces of the machine it was written on, and large files."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 1_000_000
# Each prints the address of a package registry that this machine is set up to use.
REGISTRIES = (
    ("pip", "config", "get", "global.index-url"),
    ("npm", "config", "get", "registry"),
    ("go", "env", "GOPROXY"),
)


def output_of(*command: str) -> str:
    """What the command prints; nothing when it is missing, fails, or takes too long to matter."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    except subprocess.TimeoutExpired:
        return ""


def registry_hosts() -> set[str]:
    addresses = " ".join(output_of(*command) for command in REGISTRIES)
    hosts = set(re.findall(r"https?://(?:[^@/\s]*@)?([^/:,|\s]+)", addresses))
    # A proxy on the loopback interface has no name that could give anything away.
    return {host for host in hosts if host != "localhost" and not host.startswith("127.")}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    assert (ROOT / ".git").exists(), "these rules are about what git tracks: run them in a checkout"
    # What is not tracked yet and not ignored either will be tracked next.
    listed = output_of("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    paths = (ROOT / name for name in listed.split("\0") if name)
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    assert files, "git lists no file: run `git ls-files` here to see why"
    return files


def mentions(paths: list[Path], words: set[str]) -> Iterator[str]:
    for path in paths:
        content = path.read_bytes()
        for word in sorted(words):
            position = content.find(word.encode())
            if position >= 0:
                line = content.count(b"\n", 0, position) + 1
                yield f"{path.relative_to(ROOT)}:{line}: names {word}"


def test_no_file_names_a_package_registry_of_this_machine(tracked: list[Path]) -> None:
    found = list(mentions(tracked, registry_hosts()))
    assert not found, "\n" + "\n".join(found)


def test_no_file_names_the_folder_it_was_checked_out_to(tracked: list[Path]) -> None:
    # A folder right below the root, such as /src, is too common a word to be a trace.
    here = {str(ROOT)} if len(ROOT.parts) > 2 else set()
    found = list(mentions(tracked, here))
    assert not found, "\n" + "\n".join(found)


def test_no_file_is_larger_than_one_megabyte(tracked: list[Path]) -> None:
    found = [f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes" for path in tracked]
    found = [line for line, path in zip(found, tracked, strict=True) if path.stat().st_size > LARGEST]
    assert not found, "\n" + "\n".join(found)


def test_a_mention_is_shown_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "a.txt").write_text("one\nregistry.example\n")
    assert list(mentions([tmp_path / "a.txt"], {"registry.example"})) == ["a.txt:2: names registry.example"]
