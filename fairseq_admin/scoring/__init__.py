"""Translations as files hold them, and their scores. No torch, no fairseq."""
