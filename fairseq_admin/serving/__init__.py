"""Folders that translate without fairseq: made, described, used."""
