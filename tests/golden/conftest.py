"""`python -m pytest tests/golden --renew` writes what comes out today as what is expected; review it as a diff."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew", action="store_true", help="write the golden files anew")
