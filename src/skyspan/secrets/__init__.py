"""Sealing at rest, and redaction of everything that is stored or shown."""
