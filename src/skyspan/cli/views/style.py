"""Symbols, colours and columns: how one thing looks the same on every screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import click

ACTION_LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "none": ("=", "white"),
        "create": ("+", "green"),
        "update": ("~", "yellow"),
        "replace": ("±", "magenta"),
        "destroy": ("-", "red"),
        "deferred": ("?", "cyan"),
    }
)

STATUS_LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "pending": ("·", "white"),
        "planning": ("▸", "cyan"),
        "running": ("▸", "cyan"),
        "deploying": ("▸", "cyan"),
        "stopping": ("▸", "cyan"),
        "destroying": ("▸", "cyan"),
        "succeeded": ("✓", "green"),
        "deployed": ("✓", "green"),
        "healthy": ("✓", "green"),
        "unchanged": ("=", "green"),
        "degraded": ("!", "yellow"),
        "unknown": ("·", "white"),
        "skipped": ("»", "yellow"),
        "cancelled": ("×", "yellow"),
        "stopped": ("■", "blue"),
        "destroyed": ("-", "blue"),
        "failed": ("✗", "red"),
        "down": ("✗", "red"),
        "lost": ("?", "red"),
        "interrupted": ("!", "red"),
    }
)


def action(name: str) -> str:
    """A change's symbol, coloured."""
    symbol, colour = ACTION_LOOKS.get(name, (" ", "white"))
    return click.style(symbol, fg=colour)


def status(name: str) -> str:
    """A status with its symbol, coloured."""
    symbol, colour = STATUS_LOOKS.get(name, ("·", "white"))
    return click.style(f"{symbol} {name}", fg=colour)


def duration(seconds: float | None) -> str:
    """`0.4s`, `12s`, `3m05s`, `2h04m`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m"


def columns(rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> str:
    """Aligned columns; colours do not count as width, and the last column is never padded."""
    shown = [[click.style(header.upper(), dim=True) for header in headers], *rows] if headers else list(rows)
    if not shown:
        return ""
    widths = [max(len(click.unstyle(row[index])) for row in shown) for index in range(len(shown[0]))]
    lines = []
    for row in shown:
        cells = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def count(number: int, noun: str) -> str:
    """`1 stage`, `3 stages`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
