"""The commands of fairseq-admin, one a file: a summary, a help text, its options, what it does."""
