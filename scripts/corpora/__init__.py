"""Corpora from their addresses to what fairseq-train reads."""
