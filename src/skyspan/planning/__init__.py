"""Pure: a composition and what was observed in, a plan and diagnostics out."""
