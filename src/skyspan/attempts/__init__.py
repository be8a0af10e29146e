"""One attempt at one stage: resolve its settings, observe, plan, and carry the change out."""
