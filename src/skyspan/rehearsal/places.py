"""Where things are inside a world (pure, and quick to import)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Ground:
    """What a world is told of the real machine: the composition's folder, folders with images that were made there, and
    the name that its control groups have."""

    folder: Path
    images: tuple[Path, ...] = ()
    groups: str = ""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are inside a world. All of it is on a file system in memory that nobody else can see."""

    root: Path = Path("/run/skyspan")

    @property
    def known_hosts(self) -> Path:
        """The stand-ins' host keys by their present addresses."""
        return self.root / "known_hosts"

    @property
    def secrets(self) -> Path:
        """The composition's secrets, as JSON, 0600."""
        return self.root / "secrets.json"

    @property
    def override(self) -> Path:
        """Terraform's override."""
        return self.root / "override.tf.json"

    @property
    def socket(self) -> Path:
        """Where the world listens for instructions."""
        return self.root / "world.sock"

    @property
    def tools(self) -> Path:
        """What is laid over this machine's files for every stand-in."""
        return self.root / "tools"

    @property
    def images(self) -> Path:
        """Images that were made for this world."""
        return self.root / "images"

    @property
    def zone(self) -> Path:
        """The names that the world's name server knows, as JSON."""
        return self.root / "zone.json"

    def key(self, secret: str) -> Path:
        """The private key file of a generated secret; `.pub` is its public half."""
        return self.root / "keys" / secret

    def machine(self, name: str) -> Path:
        """Everything of one stand-in."""
        return self.root / "machines" / name
