"""fairseq-admin analyze: the papers' figures of a model, each as JSON and PNG."""
