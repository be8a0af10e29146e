"""`skyspan validate`."""

from __future__ import annotations

from skyspan.cli.options import Globals, composition_option, composition_path, verb
from skyspan.cli.views.document import show_document


@verb("validate")
@composition_option
def validate(given: Globals, file: str | None) -> None:
    """Check a composition: every mistake at once, with its line, its column and what to do."""
    from skyspan.app.load import load_checked
    from skyspan.cli.templates import workspace_templates
    from skyspan.cli.views.problem import diagnostic_document, note, show_diagnostics
    from skyspan.providers.registry import Registry

    loaded, checked = load_checked(composition_path(file), Registry().spec_of, workspace_templates(given))
    if given.as_json:
        show_document(
            {
                "valid": True,
                "name": loaded.composition.name,
                "stages": list(checked.order),
                "diagnostics": [diagnostic_document(item) for item in checked.diagnostics],
            }
        )
        return
    show_diagnostics(checked.diagnostics)
    note(f"{loaded.composition.name}: valid, {len(checked.order)} stages")
