"""The command `fairseq-admin`, a file a command. Only what a command does imports `fairseq_admin`,
and with it torch and fairseq, which takes seconds: help and mistakes are told before."""
