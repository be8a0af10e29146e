"""Composes the override file that is laid over a configuration: the stage's own, then the installation's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyspan.providers.terraform.hcl import Facts


def compose_override(own: Mapping[str, Any], installation: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """`own` with `installation` on top.

    The installation's provider settings (a rehearsal's endpoints) are laid over every provider block of that name,
    aliases included, and left out for providers that the configuration does not use: a provider block would pull in a
    provider that is not needed.
    """
    merged = _merge(own, {key: value for key, value in installation.items() if key != "provider"})
    providers = dict(own.get("provider") or {})
    for name, given in (installation.get("provider") or {}).items():
        if name in facts.providers or name in providers:
            aliases = {alias for declared, alias in facts.configurations if declared == name}
            providers[name] = _over_every_block(providers.get(name), given, aliases)
    return merged | ({"provider": providers} if providers else {})


def _over_every_block(own: Any, given: Any, aliases: set[str]) -> Any:
    blocks = {str(block.get("alias", "")): block for block in _blocks(own)}
    for setting in _blocks(given):
        alias = str(setting.get("alias", ""))
        for target in {alias} if alias else {"", *aliases, *blocks}:
            named = {"alias": target} if target else {}
            blocks[target] = _merge(blocks.get(target, {}), {**setting, **named})
    ordered = [blocks[alias] for alias in sorted(blocks)]
    return ordered[0] if len(ordered) == 1 else ordered


def _blocks(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Mapping)]


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
