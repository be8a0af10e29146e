"""`skyspan schema`."""

from __future__ import annotations

from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document


@verb("schema")
def schema(given: Globals) -> None:
    """Print the JSON Schema of skyspan.yaml, provider settings included, for editors."""
    from skyspan.app.schema import composition_schema
    from skyspan.providers.registry import Registry

    del given
    registry = Registry()
    show_document(composition_schema({kind: registry.spec_of(kind) for kind in registry.kinds()}))
