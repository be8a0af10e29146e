"""Decides what a run does next; performs nothing."""
