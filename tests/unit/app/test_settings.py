"""Settings from the environment and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from skyspan.app.settings import ToolFinder, colours, read_settings
from skyspan.model.error import UsageError


def test_the_home_is_the_option_then_the_variable_then_the_state_folder() -> None:
    env = {"SKYSPAN_HOME": "/from/env", "XDG_STATE_HOME": "/xdg", "HOME": "/me"}
    assert read_settings("/from/option", environ=env).home == Path("/from/option")
    assert read_settings(environ=env).home == Path("/from/env")
    assert read_settings(environ={"XDG_STATE_HOME": "/xdg", "HOME": "/me"}).home == Path("/xdg/skyspan")
    assert read_settings(environ={"HOME": "/me"}).home == Path("/me/.local/state/skyspan")


def test_the_store_is_in_the_home_unless_it_is_said_otherwise() -> None:
    assert read_settings("/h", environ={}).store == "/h/skyspan.db"
    assert read_settings("/h", environ={"SKYSPAN_STORE": "postgresql://db/x"}).store == "postgresql://db/x"


def test_children_inherit_nothing_that_is_skyspans_own() -> None:
    settings = read_settings(environ={"PATH": "/bin", "SKYSPAN_PASSPHRASE": "x", "SKYSPAN_INPUT_PIN": "y"})
    assert dict(settings.child_env) == {"PATH": "/bin"}
    assert dict(settings.inputs) == {"PIN": "y"}
    assert settings.passphrase == "x"
    assert "'x'" not in repr(settings)
    assert "'y'" not in repr(settings)


@pytest.mark.parametrize("value", ["0", "1001", "-1", "many", "1.5"])
def test_a_concurrency_that_cannot_be_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="SKYSPAN_CONCURRENCY"):
        read_settings(environ={"SKYSPAN_CONCURRENCY": value})


def test_a_workspace_that_is_no_name_is_refused() -> None:
    assert read_settings(workspace="lab", environ={"SKYSPAN_WORKSPACE": "other"}).workspace == "lab"
    with pytest.raises(UsageError, match="no workspace name"):
        read_settings(workspace="../up", environ={})


def test_tools_are_found_in_our_own_folders_first(tmp_path: Path) -> None:
    for folder in ("ours", "path"):
        (tmp_path / folder).mkdir()
        for name in ("tofu", "other"):
            (tmp_path / folder / name).touch(mode=0o755)
    (tmp_path / "ours" / "other").chmod(0o644)
    finder = ToolFinder((tmp_path / "ours",), str(tmp_path / "path"), {})
    assert finder.find("none", "tofu") == tmp_path / "ours" / "tofu"
    assert finder.find("other") == tmp_path / "path" / "other", "what cannot be executed is no tool"
    assert finder.find("none") is None


def test_a_terraform_configuration_counts_only_when_it_exists(tmp_path: Path) -> None:
    there = tmp_path / "cli.tfrc"
    there.touch()
    settings = read_settings(environ={"SKYSPAN_TERRAFORM_CONFIG": str(there), "TF_CLI_CONFIG_FILE": "/none"})
    assert settings.tool_settings["terraform_config"] == str(there)
    missing = read_settings(environ={"SKYSPAN_TERRAFORM_CONFIG": "/none", "TF_CLI_CONFIG_FILE": "/none"})
    assert missing.tool_settings.get("terraform_config") != "/none"


def test_no_color_counts_when_it_is_not_empty() -> None:
    assert colours({}) is None
    assert colours({"NO_COLOR": ""}) is None
    assert colours({"NO_COLOR": "0"}) is False


def test_images_are_beside_the_folders_of_tools() -> None:
    folders = read_settings(environ={"SKYSPAN_TOOLS": "/opt/one/bin:/two/bin"}).image_folders
    assert folders[:2] == (Path("/opt/one/images"), Path("/two/images"))
