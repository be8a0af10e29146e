"""`skyspan providers`."""

from __future__ import annotations

from skyspan.cli.options import Globals, verb
from skyspan.cli.views.document import show_document


@verb("providers")
def providers(given: Globals) -> None:
    """List the providers and what each can do beyond the four verbs."""
    from skyspan.cli.views.tables import show_providers
    from skyspan.providers.registry import Registry

    document = {
        "providers": [
            {"kind": item.kind, "abilities": list(item.abilities), "summary": item.summary, "module": item.module}
            for item in Registry().describe()
        ]
    }
    (show_document if given.as_json else show_providers)(document)
