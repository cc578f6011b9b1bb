"""Checkpoint files: read, averaged, folded, compared."""
