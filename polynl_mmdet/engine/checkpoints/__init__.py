"""Checkpoint files: loading, checking and writing them."""
