"""`skyspan providers [KIND]`."""

from __future__ import annotations

import click

from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document, show_text


@verb("providers")
@click.argument("kind", required=False)
def providers(given: Globals, kind: str | None) -> None:
    """List the providers and what each can do beyond the four verbs; with KIND, the settings of one."""
    from skyspan.cli.views.tables import show_providers
    from skyspan.providers.registry import Registry

    registry = Registry()
    if kind is not None:
        from skyspan.app.reference import reference_page
        from skyspan.model.documentation import documented

        schema = documented(registry.spec_of(kind)).model_json_schema(by_alias=True)
        if given.as_json:
            show_document({"kind": kind, "schema": schema})
        else:
            described = next(item for item in registry.describe() if item.kind == kind)
            show_text(reference_page(described, schema))
        return
    document = {
        "providers": [
            {"kind": item.kind, "abilities": list(item.abilities), "summary": item.summary, "module": item.module}
            for item in registry.describe()
        ]
    }
    (show_document if given.as_json else show_providers)(document)
