"""What of a PostgreSQL URL reaches the driver, and what a server's refusal means."""

from __future__ import annotations

import os
import pwd
import ssl

import pg8000.exceptions
import pytest
import sqlalchemy as sa

from skyspan.model.error import StoreCorruptError, StoreUnavailableError, UsageError
from skyspan.store.postgres import PostgresFlavour, _driver_settings


def test_a_plain_url_is_mapped_to_the_driver() -> None:
    url, arguments = _driver_settings(sa.make_url("postgresql://ann:p%40ss@db.example:5433/sky"))
    assert url.render_as_string(hide_password=False) == "postgresql+pg8000://ann:p%40ss@db.example:5433/sky"
    assert arguments == {"timeout": 30.0}


def test_a_folder_as_host_is_a_socket() -> None:
    url, arguments = _driver_settings(sa.make_url("postgresql://ann@/sky?host=/run/pg&port=5440"))
    assert arguments["unix_sock"] == "/run/pg/.s.PGSQL.5440"
    assert url.host is None
    assert not url.query


def test_without_a_user_it_is_who_runs_skyspan() -> None:
    url, _ = _driver_settings(sa.make_url("postgresql://db.example/sky"))
    assert url.username == pwd.getpwuid(os.geteuid()).pw_name


@pytest.mark.parametrize(
    ("mode", "verify", "hostname"),
    [
        ("require", ssl.CERT_NONE, False),
        ("verify-ca", ssl.CERT_REQUIRED, False),
        ("verify-full", ssl.CERT_REQUIRED, True),
    ],
)
def test_sslmode_decides_what_is_verified(mode: str, verify: ssl.VerifyMode, hostname: bool) -> None:
    _, arguments = _driver_settings(sa.make_url(f"postgresql://ann@db/sky?sslmode={mode}"))
    assert (arguments["ssl_context"].verify_mode, arguments["ssl_context"].check_hostname) == (verify, hostname)


def test_sslmode_disable_means_no_tls() -> None:
    assert _driver_settings(sa.make_url("postgresql://ann@db/sky?sslmode=disable"))[1]["ssl_context"] is None


@pytest.mark.parametrize("query", ["sslmode=odd", "options=-csearch_path%3Dx"])
def test_a_setting_that_is_not_understood_is_a_usage_error(query: str) -> None:
    with pytest.raises(UsageError):
        _driver_settings(sa.make_url(f"postgresql://ann@db/sky?{query}"))


@pytest.mark.parametrize(
    ("state", "kind", "part", "lost", "again"),
    [
        ("53100", StoreUnavailableError, "ran out of", False, False),
        ("57P01", StoreUnavailableError, "not ready", True, False),
        ("08006", StoreUnavailableError, "was lost", True, False),
        ("25006", StoreUnavailableError, "read-only", False, False),
        ("42501", StoreUnavailableError, "denied", False, False),
        ("55P03", StoreUnavailableError, "locked", False, False),
        ("40P01", StoreUnavailableError, "refused", False, True),
        ("XX001", StoreCorruptError, "damaged", False, False),
        ("28P01", StoreUnavailableError, "login", False, False),
    ],
)
def test_a_refusal_of_the_server_says_what_it_means(
    state: str, kind: type[Exception], part: str, lost: bool, again: bool
) -> None:
    flavour = PostgresFlavour(sa.make_url("postgresql://ann:hunter2@db/sky"))
    trouble = flavour.trouble(pg8000.exceptions.DatabaseError({"C": state, "M": "its own words"}))
    assert trouble is not None
    assert type(trouble.error) is kind
    assert part in trouble.error.summary
    assert "its own words" in trouble.error.detail
    assert "hunter2" not in str(trouble.error)
    assert trouble.error.hint
    assert (trouble.lost, trouble.again) == (lost, again)


def test_an_error_of_ours_is_not_the_databases() -> None:
    flavour = PostgresFlavour(sa.make_url("postgresql://ann@db/sky"))
    assert flavour.trouble(UsageError("x")) is None
