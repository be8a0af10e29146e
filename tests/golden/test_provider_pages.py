"""docs/providers/ is what the specs say; `make golden` renews it."""

from pathlib import Path

import pytest

from skyspan.app.reference import reference_page
from skyspan.model.documentation import documented
from skyspan.providers.registry import Registry

PAGES = Path(__file__).parents[2] / "docs" / "providers"


@pytest.mark.parametrize("kind", Registry().kinds())
def test_a_provider_has_its_page_as_its_spec_says(kind: str, request: pytest.FixtureRequest) -> None:
    registry = Registry()
    described = next(item for item in registry.describe() if item.kind == kind)
    page = reference_page(described, documented(registry.spec_of(kind)).model_json_schema(by_alias=True))
    path = PAGES / f"{kind}.md"
    if request.config.getoption("--renew"):
        path.write_text(page)
    assert path.is_file(), "no page yet: make golden"
    assert path.read_text() == page, "the page is stale: make golden"


def test_there_is_no_page_of_a_provider_that_is_gone() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(Registry().kinds())
