"""The passes a composition goes through before anything else happens: read this first.

Each takes the draft and gives it back with more known or more findings. They run in this order, all of them, so that
every error is shown at once; what a later pass would only repeat, it leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from skyspan.model.composition import Composition
from skyspan.model.diagnostic import Diagnostic, Severity
from skyspan.model.error import CompositionError
from skyspan.model.expression import Loc
from skyspan.planning import (
    pass_connections,
    pass_cycles,
    pass_declarations,
    pass_dependencies,
    pass_expressions,
    pass_hosts,
    pass_names,
    pass_needs,
    pass_references,
    pass_specs,
    pass_unused,
)
from skyspan.planning.draft import NO_TEMPLATES, Checked, Draft, SpecOf, Templates
from skyspan.planning.source import Source

PASSES: tuple[Callable[[Draft], Draft], ...] = (
    # Types of inputs and outputs can be read, and defaults and examples are of them.
    pass_declarations.check_declarations,
    # Connections that stages name exist, and give `uses: connection` its provider.
    pass_connections.join_connections,
    # Every expression can be read and stands where one may; later passes use what was read.
    pass_expressions.read_expressions,
    # Which stage gives each host its name in a private network.
    pass_names.name_hosts,
    # What expressions refer to is declared.
    pass_references.check_references,
    # Hosts that stages and other hosts name exist, and lead somewhere.
    pass_hosts.check_hosts,
    # Stages that `needs` names exist.
    pass_needs.check_needs,
    # Providers exist and accept the settings, as far as those are known.
    pass_specs.check_specs,
    # What each stage waits for.
    pass_dependencies.infer_dependencies,
    # There is an order; else the way round is shown.
    pass_cycles.find_order,
    # Declared, but nobody reads it.
    pass_unused.warn_unused,
)


def check(
    composition: Composition,
    source: Source,
    spec_of: SpecOf | None = None,
    *,
    broken: frozenset[Loc] = frozenset(),
    earlier: tuple[Diagnostic, ...] = (),
    templates: Templates = NO_TEMPLATES,
) -> Checked:
    """Run every pass; raises CompositionError with every error (and `earlier` ones), in order of the file.

    `spec_of` gives the model of a provider's settings; without it settings are not checked. `broken` names what was
    left out of `composition` because of `earlier` errors. `templates` are the workspace's.
    """
    draft = Draft(composition, source, spec_of, broken, templates, findings=earlier)
    for run in PASSES:
        draft = run(draft)
    # What was wrong with the file itself is often wrong for a later pass too: said once is enough.
    reported = {item.where for item in earlier}
    fresh = (item for item in draft.findings[len(earlier) :] if item.where not in reported)
    findings = tuple(sorted(dict.fromkeys((*earlier, *fresh)), key=lambda item: (item.where, item.summary)))
    if any(item.severity is Severity.ERROR for item in findings):
        raise CompositionError(findings)
    return Checked(draft.composition, MappingProxyType(dict(draft.needs)), draft.order, findings, draft.names)
