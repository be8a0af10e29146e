"""Environment variables as providers get them: by name, as secrets, and never Skyspan's own."""

from __future__ import annotations

from skyspan.app.contexts import SecretVariables
from skyspan.app.settings import read_settings
from skyspan.model.secret import Secret


def test_a_variable_is_a_secret_and_skyspans_own_are_not_to_be_had() -> None:
    settings = read_settings(environ={"TS_AUTHKEY": "tskey-auth-x", "EMPTY": "", "SKYSPAN_PASSPHRASE": "pass"})
    variables = SecretVariables(settings.child_env)
    assert variables.get("TS_AUTHKEY") == Secret("tskey-auth-x")
    assert variables.get("EMPTY") is None
    assert variables.get("ABSENT") is None
    assert variables.get("SKYSPAN_PASSPHRASE") is None
    assert "tskey" not in repr(variables)
