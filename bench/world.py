"""Where a benchmark runs: its folder, its environment, the commands it compares."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.processes import Sample, run

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".bench" / "venv" / "bin"


@dataclass(frozen=True, slots=True)
class World:
    """A folder that vanishes afterwards, an environment without anybody's settings, and how much to do."""

    folder: Path
    env: dict[str, str]
    quick: bool

    @property
    def skyspan(self) -> Path:
        """The command measured: the one installed beside this Python."""
        return Path(sysconfig.get_path("scripts")) / "skyspan"

    def rounds(self, full: int, quick: int = 2) -> int:
        """How many rounds to do."""
        return quick if self.quick else full

    def size(self, full: int, quick: int) -> int:
        """How large a job to make."""
        return quick if self.quick else full

    def fresh(self, name: str) -> Path:
        """A new empty folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def peer(self, name: str) -> Path | None:
        """A peer's command, or None where it could not be installed."""
        path = PEERS / name
        return path if path.exists() else None

    def composition(self, name: str, text: str) -> Path:
        """A folder with this composition."""
        folder = self.fresh(name)
        (folder / "skyspan.yaml").write_text(text)
        return folder

    def sky(self, *arguments: str | Path, home: Path, timeout_s: float = 300.0) -> Sample:
        """Run `skyspan` with a state home."""
        return run([self.skyspan, "--home", home, *arguments], home, self.env, timeout_s=timeout_s)

    def up(self, composition: Path, home: Path | None = None) -> Sample:
        """`skyspan up`; in a fresh state home, removed afterwards, unless one is given."""
        if home is not None:
            return self.sky("up", "--yes", "-f", composition, home=home)
        home = self.fresh("home")
        try:
            return self.sky("up", "--yes", "-f", composition, home=home)
        finally:
            shutil.rmtree(home)


@contextmanager
def open_world(*, quick: bool) -> Iterator[World]:
    """A world for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="skyspan-bench-") as name:
        folder = Path(name)
        (folder / "user").mkdir()
        (folder / "terraform.rc").write_text("disable_checkpoint = true\n")
        env = {
            "PATH": os.pathsep.join([str(ROOT / ".tools" / "bin"), os.environ.get("PATH", os.defpath)]),
            "HOME": str(folder / "user"),
            "TMPDIR": name,
            "LANG": "C.UTF-8",
            "TF_CLI_CONFIG_FILE": str(folder / "terraform.rc"),
            "CHECKPOINT_DISABLE": "1",
            # What `make setup` compiled is used; nothing here writes into the installation.
            "PYTHONDONTWRITEBYTECODE": "1",
            "UNFURL_HOME": "",
        }
        yield World(folder, env, quick)


def interpreter() -> Path:
    """The Python that runs this."""
    return Path(sys.executable)
