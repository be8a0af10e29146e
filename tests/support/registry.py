"""A registry of images, as small as `docker pull` allows: it runs on loopback in a namespace and tells what was asked.

`python -m tests.support.registry FOLDER` serves the images that `publish` put into `FOLDER`, prints its port, and then
one line for every manifest that is asked for. Protocol: OCI Distribution Specification 1.0, "Pulling manifests" and
"Pulling blobs"; manifests are those of Docker's image format, version 2 schema 2.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_TYPES = "application/vnd.docker."
MANIFEST = f"{_TYPES}distribution.manifest.v2+json"


def publish(folder: Path, name: str, tag: str, layer: bytes) -> None:
    """Put an image with one layer (a tar archive) there, replacing one of that name."""
    packed = gzip.compress(layer, compresslevel=1, mtime=0)
    diff = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    settings = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }
    config = json.dumps(settings).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _blob(folder, config, "container.image.v1+json"),
        "layers": [_blob(folder, packed, "image.rootfs.diff.tar.gzip")],
    }
    place = folder / name / tag
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(manifest))


def _blob(folder: Path, content: bytes, kind: str) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).write_bytes(content)
    return {"mediaType": _TYPES + kind, "size": len(content), "digest": digest}


@dataclass(frozen=True)
class Registry:
    """One that runs: `host` is `127.0.0.1:PORT` in its namespace."""

    folder: Path
    host: str
    log: Path

    @property
    def asked(self) -> list[str]:
        """The manifests that were asked for so far, as `NAME:TAG`."""
        return self.log.read_text().split()


@contextmanager
def serving(folder: Path, namespace: str) -> Iterator[Registry]:
    """A registry of what `folder` holds, in a network namespace given by its path."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["nsenter", f"--net={namespace}", sys.executable, "-m", "tests.support.registry", str(folder)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=said,
        )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().decode().strip()
        assert port.isdigit(), log.read_text()
        yield Registry(folder, f"127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.communicate(timeout=20)


_UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


class _Answers(BaseHTTPRequestHandler):
    folder = Path()
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        parts = self.path.strip("/").split("/")
        content, kind = b"{}", "application/json"
        status = 200
        if len(parts) > 3:
            name, section, wanted = "/".join(parts[1:-2]), parts[-2], parts[-1]
            content, kind = self._found(name, section, wanted)
            if not content:
                status, content = 404, _UNKNOWN
            if section == "manifests" and with_body is False:
                print(f"{name}:{wanted}", file=sys.stderr, flush=True)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(content).hexdigest()}")
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _found(self, name: str, section: str, wanted: str) -> tuple[bytes, str]:
        if section == "blobs":
            blob = self.folder / wanted
            return (blob.read_bytes() if blob.is_file() else b""), "application/octet-stream"
        for file in (self.folder / name).iterdir() if (self.folder / name).is_dir() else ():
            content = file.read_bytes()
            if wanted in (file.name, f"sha256:{hashlib.sha256(content).hexdigest()}"):
                return content, MANIFEST
        return b"", "application/json"

    def log_message(self, *_: object) -> None:
        """Only what is printed above."""


def main() -> None:
    _Answers.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    os.umask(0o077)
    main()
