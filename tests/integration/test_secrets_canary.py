"""Secrets that every child prints in every form are found nowhere afterwards: not in the home, not on any screen."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from tests.support.cli import Cli, Ran
from tests.support.terminal import Terminal

pytestmark = pytest.mark.integration

RAW = "pl4nted\"w0rd'/+=& <x>%{y}${z}#;`$HOME`"
JSON_SPECIAL = 'tab\there "quoted" back\\slash and ünïcode'
BODY = [base64.b64encode(bytes(range(start, start + 48))).decode() for start in (0, 48, 96, 144)]
PEM = "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *BODY, "-----END OPENSSH PRIVATE KEY-----"])
SENSITIVE_INPUT = "an-input-that-is-secret-4711"
MADE_THERE = "made-by-the-tool-itself-0815"

SECRETS = {"raw": RAW, "pem": PEM, "special": JSON_SPECIAL}

# Prints the secrets in its environment in every form, whole and byte by byte, to both streams.
PRINTER = r"""
import base64, json, os, sys, urllib.parse
for name in ("RAW", "PEM", "SPECIAL", "PIN"):
    text = os.environ[name]
    raw = text.encode()
    forms = [
        raw, base64.b64encode(raw), base64.urlsafe_b64encode(raw), base64.b64encode(b"user:" + raw),
        base64.encodebytes(raw), urllib.parse.quote(text, safe="").encode(), urllib.parse.quote(text).encode(),
        urllib.parse.quote_plus(text).encode(), json.dumps({"deep": [text]}).encode(),
        json.dumps({"deep": text}, ensure_ascii=False).encode(), json.dumps(json.dumps(text)).encode(),
        raw.hex().encode(), raw.hex().upper().encode(),
    ]
    for form in forms:
        for stream in (1, 2):
            os.write(stream, b"whole: " + form + b" :end\n")
        for place in range(len(form)):
            os.write(1, form[place:place + 1])
        os.write(1, b"\n")
        half = len(form) // 2
        os.write(2, b"half " + form[:half])
        sys.stdout.flush()
        os.write(2, form[half:] + b" end\n")
if len(sys.argv) > 1:
    open("printed", "w").close()
    with open(os.environ["SKYSPAN_OUTPUT"], "a") as file:
        file.write(json.dumps({"given": os.environ["RAW"], "harmless": "all-may-read-this"}) + "\n")
else:
    sys.exit("I fail, and by the way: " + os.environ["RAW"] + os.environ["PEM"])
"""

COMPOSITION = """
inputs:
  pin: {{type: secret}}
hosts:
  box: {{address: 127.0.0.1, vars: {{ansible_connection: local, ansible_python_interpreter: auto_silent}}}}
stages:
  printer:
    uses: command
    with:
      run: [{python}, printer.py, succeed]
      env: &env
        RAW: "${{{{ secrets.raw }}}}"
        PEM: "${{{{ secrets.pem }}}}"
        SPECIAL: "${{{{ secrets.special }}}}"
        PIN: "${{{{ inputs.pin }}}}"
      check: echo "$RAW" >&2; test -e printed
      destroy: echo "$RAW"; echo "$PEM" >&2; rm printed
    outputs:
      given: {{type: secret}}
      harmless: {{type: string}}
  failing:
    uses: command
    best_effort: true
    retry: {{attempts: 2, backoff: 10ms, on: any}}
    with: {{run: [{python}, printer.py], env: *env}}
  script:
    uses: command
    with: {{run: "echo '${{{{ secrets.pem }}}}' >&2; cat", stdin: "${{{{ secrets.special }}}}"}}
  reader:
    uses: command
    with: {{run: "echo handed on: $GIVEN", env: {{GIVEN: "${{{{ stages.printer.outputs.given }}}}"}}}}
  cloud:
    uses: terraform
    with: {{source: ./cloud, variables: {{plain: "${{{{ secrets.raw }}}}", guarded: "${{{{ secrets.pem }}}}"}}}}
    outputs:
      made: {{type: string, sensitive: true}}
      back: {{type: string}}
      guarded: {{type: string, sensitive: true}}
  play:
    uses: ansible
    with:
      playbook: site.yml
      hosts: [box]
      extra_vars: {{raw: "${{{{ secrets.raw }}}}", pem: "${{{{ secrets.pem }}}}"}}
  register:
    uses: http
    best_effort: true
    retry: {{attempts: 1}}
    with:
      url: "{url}"
      retries: {{attempts: 1}}
      headers: {{X-Token: "${{{{ inputs.pin }}}}"}}
      body: {{token: "${{{{ secrets.raw }}}}", other: "${{{{ secrets.special }}}}"}}
"""

CLOUD = f"""
variable "plain" {{ type = string }}
variable "guarded" {{
  type      = string
  sensitive = true
}}
resource "terraform_data" "plain" {{
  input            = var.plain
  triggers_replace = [var.plain]
  provisioner "local-exec" {{
    command     = "echo said: $TEXT; printf '%s' \\"$TEXT\\" | base64 -w0; echo; echo $TEXT >&2"
    environment = {{ TEXT = var.plain }}
  }}
}}
resource "terraform_data" "guarded" {{
  input = var.guarded
  provisioner "local-exec" {{
    command     = "echo \\"$TEXT\\""
    environment = {{ TEXT = var.guarded }}
  }}
}}
output "back" {{ value = terraform_data.plain.output }}
output "guarded" {{
  value     = terraform_data.guarded.output
  sensitive = true
}}
output "made" {{
  value     = join("-", ["{MADE_THERE.replace("-", '", "')}"])
  sensitive = true
}}
"""

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - debug: {msg: "{{ raw }} and {{ pem }}"}
    - command: cat
      args: {stdin: "{{ raw }} {{ raw | b64encode }} {{ pem }}"}
      changed_when: false
    - set_stats: {data: {from_play: "{{ raw }}", deep: [{inside: "{{ pem }}"}]}}
    - fail: {msg: "it fails with {{ raw }} and {{ pem }}"}
      ignore_errors: true
"""


def needles() -> dict[str, bytes]:
    """What must be found nowhere: every secret in every form that a tool may give it."""
    parts = {"raw": RAW, "special": JSON_SPECIAL, "pin": SENSITIVE_INPUT, "made": MADE_THERE}
    parts |= {f"pem line {number}": line for number, line in enumerate(BODY)}
    found: dict[str, bytes] = {}
    for name, text in parts.items():
        raw = text.encode()
        forms = {
            "as it is": raw,
            "base64": base64.b64encode(raw).rstrip(b"=")[:-1],
            "URL base64": base64.urlsafe_b64encode(raw).rstrip(b"=")[:-1],
            "hexadecimal": raw.hex().encode(),
            "HEXADECIMAL": raw.hex().upper().encode(),
            "URL-quoted": quote(text, safe="").encode(),
            "form-quoted": quote_plus(text).encode(),
            "JSON": json.dumps(text)[1:-1].encode(),
            "JSON in JSON": json.dumps(json.dumps(text))[3:-3].encode(),
            "reversed": raw[::-1],
        }
        found |= {f"{name}, {form}": data for form, data in forms.items()}
    return found


@dataclass
class Watch:
    """Everything that was shown or could be read, by where it was."""

    seen: dict[str, bytes] = field(default_factory=dict)

    def keep(self, where: str, ran: Ran) -> Ran:
        self.seen[where] = f"{ran.out}\0{ran.err}".encode(errors="surrogateescape")
        return ran

    def refuse(self) -> None:
        found = [
            f"{name} is in {where}"
            for where, data in self.seen.items()
            for name, needle in needles().items()
            if needle in data
        ]
        assert not found, "\n".join(found)


@contextlib.contextmanager
def watched_process_list(watch: Watch) -> Iterator[None]:
    """Every argument list that any process of this machine had meanwhile, as far as looking again and again shows."""
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for folder in Path("/proc").iterdir():
                if folder.name.isdigit():
                    with contextlib.suppress(OSError):
                        seen.add((folder / "cmdline").read_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert any(b"printer.py" in line for line in seen), "the children were seen"
    watch.seen["the process list"] = b"\n".join(seen)


@contextlib.contextmanager
def a_server_that_repeats_everything() -> Iterator[str]:
    class Parrot(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(418)
            self.end_headers()
            self.wfile.write(b"no: " + body + b" from " + self.headers["X-Token"].encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files_of(folder: Path, watch: Watch) -> int:
    """Adds every byte below `folder`; how many files there were."""
    count = 0
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            watch.seen[f"{path.relative_to(folder.parent)} @{len(watch.seen)}"] = path.read_bytes()
            count += 1
    return count


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


def composed(cli: Cli, url: str) -> Path:
    app = cli.compose(COMPOSITION.format(python=sys.executable, url=url))
    (app / "printer.py").write_text(PRINTER)
    (app / "site.yml").write_text(PLAYBOOK)
    (app / "cloud").mkdir()
    (app / "cloud" / "main.tf").write_text(CLOUD)
    for name, text in SECRETS.items():
        assert cli("secrets", "set", name, stdin=text).status == 0
    cli.env["SKYSPAN_INPUT_PIN"] = SENSITIVE_INPUT
    return app


def test_planted_secrets_are_found_nowhere(cli: Cli) -> None:
    watch = Watch()
    with a_server_that_repeats_everything() as url, watched_process_list(watch):
        app = composed(cli, url)
        watch.keep("the first plan", cli.plan(app, "--out", app / "saved.plan"))
        first = watch.keep("up", cli.up(app, "--debug", timeout_s=180))
        assert first.status == 0, first.out
        statuses = first.stages()
        assert {name for name, status in statuses.items() if status == "failed"} == {"failing", "register"}, statuses
        assert "from_play" in str(cli.json("outputs", "app").document["stages"]["play"])
        window = Terminal(cli.argv("up", "-f", app, "--yes"), cli.env, cli.folder)
        try:
            window.end(180)
        finally:
            window.close()
        watch.seen["the terminal"] = window.raw.encode()
    run = first.document["run"]["id"]
    for arguments in (
        ("status", "app"), ("logs", "app", "--run", run), ("logs", "app"), ("events", run), ("outputs", "app"),
        ("show", run), ("runs", "app"), ("list",), ("secrets", "list"), ("links", "app"),
    ):  # fmt: skip
        ran = watch.keep(" ".join(arguments), cli(*arguments))
        assert ran.status == 0
        watch.keep(" ".join(arguments) + " --json", cli.json(*arguments))
    watch.keep("the second plan", cli.plan(app))
    watch.keep("check", cli.json("check", "app"))
    assert "***" in watch.seen[f"logs app --run {run}"].decode()
    assert "all-may-read-this" in watch.seen["outputs app --json"].decode(), "what is no secret is shown"
    assert (app / "saved.plan").exists()
    watch.seen["the plan file"] = (app / "saved.plan").read_bytes()
    assert files_of(cli.home, watch) > 3
    files_of(cli.folder / "tmp", watch)
    files_of(cli.folder / "user", watch)
    revealed = cli.json("outputs", "app", "--reveal").document["merged"]
    assert revealed["given"] == RAW
    assert revealed["back"] == RAW
    assert revealed["guarded"] == PEM
    assert revealed["made"] == MADE_THERE
    watch.keep("destroy", cli.json("destroy", "app", "--yes", timeout_s=180))
    files_of(cli.home, watch)
    watch.refuse()


def test_a_secret_that_is_replaced_or_removed_leaves_no_trace(cli: Cli) -> None:
    watch = Watch()
    for value in (RAW, JSON_SPECIAL, "harmless"):
        cli("secrets", "set", "token", stdin=value)
    watch.keep("the list", cli.json("secrets", "list"))
    assert cli("secrets", "remove", "token").status == 0
    files_of(cli.home, watch)
    watch.refuse()


def test_the_watch_would_see_a_secret() -> None:
    for form in (RAW.encode(), base64.b64encode(RAW.encode()), json.dumps({"a": RAW}).encode(), PEM.encode()):
        watch = Watch({"somewhere": b"before " + form + b" after"})
        with pytest.raises(AssertionError, match="is in somewhere"):
            watch.refuse()
