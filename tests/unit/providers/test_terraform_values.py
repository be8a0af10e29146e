"""Settings, commands, versions, overrides, states and failures of the terraform provider."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.contracts.transport import Completed, Effect
from skyspan.model.change import Action
from skyspan.model.error import CredentialsError, Retry, StageError, ToolFailedError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue
from skyspan.providers.terraform.commands import PATIENT, Invocation, quiet_environment, version_of
from skyspan.providers.terraform.failure import Sources, failure, is_stale, lost, needs_init, rendered
from skyspan.providers.terraform.hcl import Facts
from skyspan.providers.terraform.override import compose_override
from skyspan.providers.terraform.parse import Diagnosis, Moved
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.state import Keeper, backend_override, decide_keeper, parse_state
from skyspan.providers.terraform.version import constraint_problem, parse_version, satisfies

SAMPLES = Path(__file__).parent / "terraform_samples"
SOURCES = Sources("cloud", "/work/scratch/x")

INVOCATION = Invocation(Path("/bin/tofu"), Path("/stage/tree/cloud"), {"A": "b"}, Path("/v.json"), 4)


@pytest.mark.parametrize("source", ["/etc", "../other", "a/../../b", ""])
def test_a_source_outside_of_the_composition_is_refused(source: str) -> None:
    with pytest.raises(ValidationError):
        TerraformSpec(source=source)


def test_the_settings_know_their_secrets() -> None:
    spec = TerraformSpec(
        source="./cloud/", variables={"a": [Secret("one")]}, env={"B": Secret("two")}, override={"c": Secret("three")}
    )
    assert {secret.reveal() for secret in spec.secrets} == {"one", "two", "three"}
    assert spec.source == "cloud"


@pytest.mark.parametrize(
    ("constraint", "version", "meets"),
    [
        ("", "1.0.0", True),
        (">= 1.6", "1.6.0", True),
        (">=1.6,<2", "1.12.6", True),
        (">= 1.6, < 1.10", "1.10.0", False),
        ("~> 1.9", "1.12.0", True),
        ("~> 1.9", "2.0.0", False),
        ("~> 1.9.2", "1.9.9", True),
        ("~> 1.9.2", "1.10.0", False),
        ("~> 1.9.2", "1.9.1", False),
        ("~> 1", "1.5.0", True),
        ("~> 1", "2.0.0", False),
        ("= 1.9.0", "1.9.0", True),
        ("1.9.0", "1.9.1", False),
        ("!= 1.9.0", "1.9.0", False),
        ("> 1.9", "1.9.0", False),
        ("<= 1.9", "1.9.1", False),
    ],
)
def test_version_constraints_mean_what_they_mean_to_the_tools(constraint: str, version: str, meets: bool) -> None:
    assert satisfies(parse_version(version), constraint) is meets


def test_a_constraint_that_is_none_is_refused_in_the_settings() -> None:
    assert "'latest' is no version constraint" in constraint_problem(">= 1, latest")
    with pytest.raises(ValidationError, match="no version constraint"):
        TerraformSpec(source="a", version="latest")


def test_a_version_of_a_prerelease_is_read() -> None:
    assert parse_version("1.13.0-beta1") == (1, 13, 0)
    with pytest.raises(ValueError, match="no version"):
        parse_version("dev")


def test_commands_read_or_write_and_only_writing_ones_get_minutes_to_stop() -> None:
    plan = Path("/p")
    reading = [
        INVOCATION.init(reconfigure=True),
        INVOCATION.plan(refresh=True),
        INVOCATION.show(plan),
        INVOCATION.pull(),
    ]
    writing = [INVOCATION.apply(plan), INVOCATION.destroy()]
    assert {command.effect for command in reading} == {Effect.READ}
    assert {command.effect for command in writing} == {Effect.WRITE}
    assert {command.ladder for command in writing} == {PATIENT}
    assert all(command.ladder.first_s < 60 for command in reading)
    assert all(command.cwd == "/stage/tree/cloud" for command in reading + writing)


def test_commands_are_as_the_tools_want_them() -> None:
    assert INVOCATION.init(reconfigure=True).argv == ("/bin/tofu", "init", "-json", "-input=false", "-reconfigure")
    assert INVOCATION.init(reconfigure=False).argv == ("/bin/tofu", "init", "-json", "-input=false")
    common = ("-parallelism=4",)
    assert INVOCATION.plan(refresh=False, out=Path("/p")).argv == (
        *(
            "/bin/tofu",
            "plan",
            "-json",
            "-input=false",
            "-detailed-exitcode",
            "-lock=false",
            "-refresh=false",
            "-out=/p",
        ),
        *common,
        "-var-file=/v.json",
    )
    assert INVOCATION.apply(Path("/p")).argv == ("/bin/tofu", "apply", "-json", "-input=false", *common, "/p")
    assert INVOCATION.destroy().argv == (
        *("/bin/tofu", "destroy", "-json", "-input=false", "-auto-approve"),
        *common,
        "-var-file=/v.json",
    )


def test_the_environment_of_the_caller_does_not_steer_the_tool() -> None:
    environment = quiet_environment(Path("/rc"), Path("/data"))
    assert environment["TF_CLI_CONFIG_FILE"] == "/rc"
    assert environment["TF_DATA_DIR"] == "/data"
    assert environment["TF_PLUGIN_CACHE_DIR"] == ""
    assert environment["TF_CLI_ARGS"] == environment["TF_CLI_ARGS_plan"] == environment["TF_WORKSPACE"] == ""
    assert version_of(Path("/t"), environment).effect is Effect.READ


def test_the_installations_provider_settings_reach_every_block_of_a_used_provider_and_no_other() -> None:
    facts = Facts(providers=frozenset({"aws"}), configurations=frozenset({("aws", ""), ("aws", "us")}))
    own = {"provider": {"aws": {"region": "mine"}}, "locals": {"a": 1}}
    given = {"provider": {"aws": {"endpoints": {"ec2": "e"}}, "google": {"project": "p"}}, "locals": {"b": 2}}
    assert compose_override(own, given, facts) == {
        "provider": {
            "aws": [
                {"region": "mine", "endpoints": {"ec2": "e"}},
                {"endpoints": {"ec2": "e"}, "alias": "us"},
            ]
        },
        "locals": {"a": 1, "b": 2},
    }


def test_no_override_is_no_file() -> None:
    assert compose_override({}, {"provider": {"aws": {}}}, Facts()) == {}


def test_state_is_kept_here_unless_the_configuration_says_otherwise() -> None:
    spec, kept = TerraformSpec(source="a"), TerraformSpec(source="a", backend="kept")
    own = Facts(backend="s3")
    assert decide_keeper(spec, Facts(), rehearsal=False) is Keeper.SKYSPAN
    assert decide_keeper(spec, own, rehearsal=False) is Keeper.BACKEND
    assert decide_keeper(kept, own, rehearsal=False) is Keeper.SKYSPAN
    assert decide_keeper(spec, own, rehearsal=True) is Keeper.SKYSPAN
    assert backend_override(Keeper.SKYSPAN) == {"terraform": {"backend": {"http": {}}}}
    assert backend_override(Keeper.BACKEND) == {}


@pytest.mark.parametrize("tool", ["tofu", "terraform"])
def test_a_recorded_state_is_read(tool: str) -> None:
    state = parse_state((SAMPLES / f"{tool}-state.json").read_bytes())
    assert state.fingerprint == f"{state.lineage}:{state.serial}"
    assert state.outputs["password"] == OutputValue("hush-hush", sensitive=True)
    assert state.outputs["shape"] == OutputValue([1, "a", {"x": True}])
    assert [item.address for item in state.instances] == ["terraform_data.plain", 'terraform_data.scripted["a b"]']
    assert not state.empty


def test_modules_counts_and_tainted_objects_are_read() -> None:
    resource = {"mode": "managed", "type": "t", "name": "n", "module": "module.m[0]"}
    instances = [{"index_key": 0, "attributes": {"id": "x"}}, {"index_key": 1, "status": "tainted", "attributes": None}]
    document: dict[str, Any] = {
        "version": 4,
        "lineage": "l",
        "serial": 3,
        "resources": [resource | {"instances": instances}],
    }
    state = parse_state(json.dumps(document).encode())
    assert [(item.address, item.tainted) for item in state.instances] == [
        ("module.m[0].t.n[0]", False),
        ("module.m[0].t.n[1]", True),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"version": 4}', "cannot be read"),
        (b'{"version": 3, "lineage": "l", "serial": 1}', "format version 3"),
        (b'{"encrypted_data": "x", "lineage": "l", "serial": 1}', "`encryption` block"),
    ],
)
def test_a_state_that_cannot_be_read_says_why(data: bytes, message: str) -> None:
    with pytest.raises(StageError, match=message):
        parse_state(data)


def error(summary: str, detail: str = "", **more: Any) -> Diagnosis:
    return Diagnosis("error", summary, detail, **more)


def failed(*diagnoses: Diagnosis, exit_code: int = 1) -> StageError:
    return failure("tofu", "apply", Completed(exit_code), diagnoses, SOURCES)


def test_a_failure_has_the_users_file_the_source_line_and_the_tools_words() -> None:
    found = failed(
        error("Bad thing", "Because.", file="main.tf", line=3, column=5, code="    x = y", context='resource "a" "b"')
    )
    assert found.summary == "tofu apply: Bad thing (cloud/main.tf:3)"
    assert found.detail.splitlines() == [
        "cloud/main.tf:3:5: error: Bad thing",
        "        x = y",
        "        ^",
        '    in resource "a" "b"',
        "    Because.",
    ]


def test_files_beside_the_source_and_our_own_are_named_as_what_they_are() -> None:
    assert "modules/m/x.tf:1:1: error" in rendered(error("e", file="../modules/m/x.tf", line=1, column=1), SOURCES)
    assert rendered(error("e", file="skyspan_override.tf.json", line=9), SOURCES).startswith("override: error: e")
    private = rendered(error("e", file="/work/scratch/x/variables.tfvars.json", line=2, code='"pass": "hush"'), SOURCES)
    assert private == "variables: error: e"


def test_several_errors_are_all_told_and_each_once() -> None:
    found = failed(error("One"), error("Two"), error("One"), Diagnosis("warning", "Old"))
    assert found.summary == "tofu apply: One and 1 more"
    assert found.detail == "cloud: error: One\ncloud: error: Two"


@pytest.mark.parametrize(
    ("text", "kind", "retry"),
    [
        ("api error InvalidClientTokenId: The security token", CredentialsError, Retry.NEVER),
        ("No valid credential sources found", CredentialsError, Retry.NEVER),
        ("google: could not find default credentials", CredentialsError, Retry.NEVER),
        ("AADSTS7000215: Invalid client secret provided", CredentialsError, Retry.NEVER),
        ("dial tcp 10.0.0.1:443: connect: connection refused", UnreachableError, Retry.LATER),
        ("lookup ec2.example: no such host", UnreachableError, Retry.LATER),
        ("StatusCode: 503, RequestID", UnreachableError, Retry.LATER),
        ("InvalidParameterValue: nonsense", ToolFailedError, Retry.NEVER),
    ],
)
def test_a_failure_is_of_the_class_that_says_whether_trying_again_helps(text: str, kind: type, retry: Retry) -> None:
    found = failed(error("creating EC2 VPC", text))
    assert type(found) is kind
    assert found.retry is retry


def test_a_held_lock_is_tried_later_and_a_signal_too() -> None:
    assert failed(error("Error acquiring the state lock")).retry is Retry.LATER
    killed = failed(exit_code=-9)
    assert (killed.summary, killed.retry) == ("tofu apply failed (killed by signal 9)", Retry.LATER)


def test_what_the_tool_said_outside_of_its_protocol_is_the_detail() -> None:
    completed = Completed(2, stdout=b'{"@message": "x"}\n', stderr=b"panic: at the disco\n")
    assert failure("tofu", "plan", completed, (), SOURCES).detail == "panic: at the disco"
    quiet = Completed(2, stdout=b'{"@message": "first"}\n{"@message": "last"}\n')
    assert failure("tofu", "plan", quiet, (), SOURCES).detail == "first\nlast"


def test_what_asks_for_init_and_what_is_stale_is_recognised() -> None:
    assert needs_init([error("Module not installed", 'run "terraform init" to install all modules')])
    assert needs_init([error('Backend initialization required, please run "tofu init"')])
    assert not needs_init([error("tofu initialised badly")])
    assert is_stale([error("Saved plan is stale")])
    assert not is_stale([error("Else")])


def test_what_a_killed_apply_may_have_left_is_listed_and_left_to_the_next_plan() -> None:
    made = [Moved("a.saved", Action.CREATE, "done", "id=1"), Moved("a.lost", Action.CREATE, "done", "id=2")]
    begun = [Moved("a.flying", Action.CREATE, "started")]
    found = lost(failed(exit_code=-9), frozenset({"a.saved"}), made, begun)
    assert found.detail == "made, but not in the state:\n  a.lost (id=2)\nunder way, perhaps made:\n  a.flying"
    assert found.retry is Retry.LATER
    kept = failed(exit_code=-9)
    assert lost(kept, frozenset({"a.saved"}), made[:1], ()) is kept
