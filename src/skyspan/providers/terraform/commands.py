"""The commands of OpenTofu and Terraform as values. Pure: nothing here runs or reads anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyspan.contracts.transport import Command, Effect, StopLadder
from skyspan.model.secret import Secret

PATIENT = StopLadder(first_s=300.0, second_s=60.0)
"""An interrupted apply waits for the API calls in flight and then saves its state: minutes, with real providers."""

# Variables by which a person's shell would change what our commands do; an empty one counts as unset in both tools.
_SILENCED = (
    "TF_CLI_ARGS",
    *(f"TF_CLI_ARGS_{verb}" for verb in ("init", "plan", "apply", "destroy", "show", "state", "version")),
    "TF_WORKSPACE",
    "TF_REATTACH_PROVIDERS",
)


@dataclass(frozen=True, slots=True)
class Invocation:
    """What all commands of one verb share. `folder` is the root module in the work tree; paths are absolute."""

    tool: Path
    folder: Path
    environment: Mapping[str, str | Secret]
    variables: Path | None = None
    parallelism: int | None = None

    def init(self, *, reconfigure: bool) -> Command:
        """Install providers and modules, set up the backend; writes only below the work folder.

        With `reconfigure` a changed backend is taken as it is: where state lives is decided and recorded elsewhere, and
        init never moves state on its own. Configurations with a `cloud` block do not take that option.
        """
        return self._command("init", "-json", "-input=false", *(("-reconfigure",) if reconfigure else ()))

    def plan(self, *, refresh: bool, out: Path | None = None, targets: Sequence[str] = ()) -> Command:
        """Plan; exit status 0 without changes, 2 with some. Without a lock: nothing is written."""
        options = ["-json", "-input=false", "-detailed-exitcode", "-lock=false"]
        options += [] if refresh else ["-refresh=false"]
        options += [f"-out={out}"] if out else []
        options += [f"-target={target}" for target in targets]
        return self._command("plan", *options, *self._parallel(), *self._variables())

    def show(self, plan: Path) -> Command:
        """A saved plan as JSON (format 1.x), secrets in clear: never to a log."""
        return self._command("show", "-json", str(plan))

    def pull(self) -> Command:
        """The state of the configuration's own backend as JSON, secrets in clear: never to a log."""
        return self._command("state", "pull")

    def push(self, state: Path) -> Command:
        """Give a state to the configuration's own backend; refused by the tool when that has a newer one."""
        return self._command("state", "push", str(state), effect=Effect.WRITE)

    def free(self, lock: str) -> Command:
        """Break a lock in the configuration's own backend."""
        return self._command("force-unlock", "-force", lock, effect=Effect.WRITE)

    def apply(self, plan: Path) -> Command:
        """Carry out a saved plan."""
        options = ("-json", "-input=false", *self._parallel())
        return self._command("apply", *options, str(plan), effect=Effect.WRITE)

    def destroy(self) -> Command:
        """Remove everything in the state."""
        options = ("-json", "-input=false", "-auto-approve", *self._parallel(), *self._variables())
        return self._command("destroy", *options, effect=Effect.WRITE)

    def _command(self, verb: str, *options: str, effect: Effect = Effect.READ) -> Command:
        ladder = PATIENT if effect is Effect.WRITE else StopLadder()
        argv = (str(self.tool), verb, *options)
        return Command(argv, self.environment, cwd=str(self.folder), effect=effect, ladder=ladder)

    def _parallel(self) -> tuple[str, ...]:
        return (f"-parallelism={self.parallelism}",) if self.parallelism else ()

    def _variables(self) -> tuple[str, ...]:
        return (f"-var-file={self.variables}",) if self.variables else ()


def version_of(tool: Path, environment: Mapping[str, str]) -> Command:
    """Ask the tool for its version, as JSON."""
    return Command((str(tool), "version", "-json"), environment, timeout_s=30.0, effect=Effect.READ)


def quiet_environment(config: Path, data: Path | None = None) -> dict[str, str]:
    """The environment of every command: unattended, no calls home, nothing from the caller's own Terraform settings."""
    environment = dict.fromkeys(_SILENCED, "")
    environment |= {
        "CHECKPOINT_DISABLE": "1",
        "TF_IN_AUTOMATION": "1",
        "TF_INPUT": "0",
        "TF_CLI_CONFIG_FILE": str(config),
        "TF_PLUGIN_CACHE_DIR": "",
    }
    if data:
        environment["TF_DATA_DIR"] = str(data)
    return environment
