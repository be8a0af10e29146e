"""An AWS in this process that can keep an answer to itself: whoever asked is killed not knowing what became of it."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl
from urllib.request import Request, urlopen

from skyspan.providers.terraform.holder import processes_of
from skyspan.providers.terraform.journal import Journal
from skyspan.testing.provider_world import FoundTools, ProviderWorld, RecordingReporter
from skyspan.transports.local import LocalTransport

ROOT = Path(__file__).resolve().parents[2]
PATH = f"{ROOT / '.tools' / 'bin'}:{os.environ.get('PATH', '')}"
REGION = "eu-west-1"
_ANSWER_S = 300
"""The stand-in loads what it knows on the first request; whoever it then gives up on asks, and creates, twice."""


class Fate(StrEnum):
    """What becomes of a request: answered; done, but never answered; never even received."""

    PASS = "pass"
    HELD = "held"
    LOST = "lost"


Judge = Callable[[dict[str, str]], Fate]


@dataclass
class Stand:
    """The stand-in. `judge` decides on each request by its parameters; `stopped` are those that got no answer."""

    url: str
    behind: str
    judge: Judge = lambda _: Fate.PASS
    stopped: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, judge: Judge) -> None:
        """An empty account, and a judge over everything that is asked from now on."""
        with urlopen(Request(f"{self.behind}/moto-api/reset", b""), timeout=_ANSWER_S):
            pass
        self.judge, self.stopped, self.released = judge, [], threading.Event()

    def release(self) -> None:
        """From now on all is answered."""
        self.judge = lambda _: Fate.PASS
        self.released.set()

    def client(self, service: str = "ec2") -> Any:
        """The API, straight to what is behind."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.behind,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(proxies={}, retries={"max_attempts": 0}),
        )

    def override(self) -> dict[str, Any]:
        """What leads the AWS provider here."""
        provider = {
            "access_key": "test",
            "secret_key": "test",
            "max_retries": 5,
            "skip_credentials_validation": True,
            "skip_metadata_api_check": True,
            "skip_requesting_account_id": True,
            "skip_region_validation": True,
            "endpoints": {"ec2": self.url, "sts": self.url, "iam": self.url},
        }
        return {"provider": {"aws": provider}}


class _Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand: Stand

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        stand, asked = self.stand, dict(parse_qsl(body.decode()))
        released = stand.released
        # One at a time: the stand-in is not made for several threads.
        with stand.turn:
            fate = stand.judge(asked)
            status, answer = (503, b"") if fate is Fate.LOST else self._ask(body)
            if fate is not Fate.PASS:
                stand.stopped.append(asked)
        if fate is not Fate.PASS:
            released.wait(_ANSWER_S)
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        try:
            with urlopen(Request(self.stand.behind, body, headers), timeout=_ANSWER_S) as said:
                return said.status, said.read()
        except HTTPError as refused:
            with refused:
                return refused.code, refused.read()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The killed tool hangs up: nothing to tell."""


@contextmanager
def standing_in() -> Iterator[Stand]:
    """The stand-in, for as long as the block lasts."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    host, port = server.get_host_and_port()
    with _Server(("127.0.0.1", 0), _Front) as front:
        stand = Stand(f"http://127.0.0.1:{front.server_port}", f"http://{host}:{port}")
        front.RequestHandlerClass = type("Front", (_Front,), {"stand": stand})
        thread = threading.Thread(target=front.serve_forever)
        thread.start()
        yield stand
        stand.release()
        front.shutdown()
        thread.join()
    server.stop()


def world_before(stand: Stand, folder: Path, configuration: str) -> ProviderWorld:
    """A stage `cloud` with that configuration, whose provider is led to the stand-in."""
    config = Path(os.environ.get("SKYSPAN_TERRAFORM_CONFIG") or ROOT / ".tools" / "terraform.rc")
    assert config.is_file(), f"{config} is missing: run `make tools`"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "world.json").write_text(json.dumps(stand.override()))
    settings = {"terraform_config": str(config), "terraform_override": str(folder / "world.json")}
    # The provider is one big program that is started over and over: collecting garbage is a third of its time.
    here = LocalTransport({"PATH": PATH, "AWS_EC2_METADATA_DISABLED": "true", "GOGC": "400"})
    world = ProviderWorld(folder, {None: here}, tools=FoundTools(PATH, settings))
    (world.folder / "cloud").mkdir()
    (world.folder / "cloud" / "main.tf").write_text(configuration)
    return world


class Killing(RecordingReporter):
    """Kills the tool, with all that it runs, once `ready` says so of what was told done and what got no answer."""

    def __init__(self, world: ProviderWorld, stand: Stand, done: int, stopped: int) -> None:
        super().__init__()
        self._world, self._stand, self._done, self._stopped = world, stand, done, stopped
        self.killed: tuple[int, ...] = ()

    def progress(self, address: str, action: str, state: str, detail: str = "") -> None:
        super().progress(address, action, state, detail)
        if self.killed or sum(step[2] == "done" for step in self.progressed) < self._done:
            return
        give_up = time.monotonic() + 120
        while len(self._stand.stopped) < self._stopped and time.monotonic() < give_up:
            time.sleep(0.02)
        self.killed = processes_of(Journal.load(self._world.kept.data["journal"]).holders[-1])
        for pid in self.killed:
            os.kill(pid, signal.SIGKILL)
