"""A signed Debian package source with one package: Tailscale, out of the programs that are here."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

CONTROL = """\
Package: tailscale
Version: {version}
Architecture: amd64
Maintainer: Nobody <nobody@example.org>
Description: for tests
"""

# As the vendor's own package does it by systemd.
PRERM = """\
#!/bin/sh
/etc/init.d/tailscaled stop || true
"""

RELEASE = """\
Origin: Test
Suite: {codename}
Codename: {codename}
Architectures: amd64
Components: main
Date: Thu, 01 Jan 2026 00:00:00 UTC
SHA256:
 {digest} {size} main/binary-amd64/Packages
"""


def run(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def make_source(root: Path, programs: Path, version: str, system: str = "debian", codename: str = "bookworm") -> None:
    """Below `root` what a web server serves: `SYSTEM/…` as the vendor has it, and `install.sh`."""
    tree = root.parent / "package"
    for place, name, content in (("DEBIAN", "control", CONTROL.format(version=version)), ("DEBIAN", "prerm", PRERM)):
        (tree / place).mkdir(parents=True, exist_ok=True)
        (tree / place / name).write_text(content)
        (tree / place / name).chmod(0o755)
    for place, name in (("usr/bin", "tailscale"), ("usr/sbin", "tailscaled")):
        (tree / place).mkdir(parents=True)
        shutil.copy(programs / name, tree / place / name)
    base = root / system
    index = base / "dists" / codename / "main" / "binary-amd64"
    index.mkdir(parents=True)
    (base / "pool").mkdir()
    package = base / "pool" / f"tailscale_{version}_amd64.deb"
    run("dpkg-deb", "-Znone", "--root-owner-group", "-b", str(tree), str(package))
    shutil.rmtree(tree)
    fields = f"Filename: pool/{package.name}\nSize: {package.stat().st_size}\nSHA256: {_digest(package)}\n"
    (index / "Packages").write_text(CONTROL.format(version=version) + fields)
    release = base / "dists" / codename / "Release"
    packages = index / "Packages"
    release.write_text(RELEASE.format(codename=codename, digest=_digest(packages), size=packages.stat().st_size))
    _sign(root.parent / "keys", release, base / f"{codename}.noarmor.gpg")
    script = f'curl -fsSo /run/t.deb "$SOURCE/{system}/pool/{package.name}"\ndpkg -i /run/t.deb\n'
    (root / "install.sh").write_text("#!/bin/sh\nset -eu\nSOURCE=http://10.98.0.1:8090\n" + script)


def _sign(home: Path, release: Path, public: Path) -> None:
    home.mkdir(mode=0o700)
    gpg = ("gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback")
    run(*gpg, "--quick-generate-key", "test@example.org", "ed25519", "sign", "never")
    run(*gpg, "--output", str(release.with_name("InRelease")), "--clearsign", str(release))
    run(*gpg, "--output", str(public), "--export")
    run("gpgconf", "--homedir", str(home), "--kill", "all")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
