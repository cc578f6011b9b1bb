"""The commands of fairseq-admin, one a file: its parser, and what it does."""
