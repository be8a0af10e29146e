"""`skyspan graph`."""

from __future__ import annotations

import click

from skyspan.cli.options import Globals, composition_option, composition_path, verb
from skyspan.cli.views.document import show_document, show_text


@verb("graph")
@composition_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "dot"]),
    default="text",
    show_default=True,
    help="The form.",
)
def graph(given: Globals, file: str | None, form: str) -> None:
    """Draw what waits for what."""
    from skyspan.app.load import load_checked
    from skyspan.cli.templates import workspace_templates
    from skyspan.planning.drawing import as_dot, as_mermaid, as_text, direct_needs
    from skyspan.providers.registry import Registry

    loaded, checked = load_checked(composition_path(file), Registry().spec_of, workspace_templates(given))
    if given.as_json:
        needs = direct_needs(checked)
        stages = [{"name": name, "needs": list(needs[name])} for name in checked.order]
        show_document({"name": loaded.composition.name, "stages": stages})
    else:
        show_text({"text": as_text, "mermaid": as_mermaid, "dot": as_dot}[form](checked))
