"""Admin for fairseq: deep Post-LN Transformers that train. Importing it registers the plugin."""

from fairseq_admin import architectures, checkpoint, optim, task  # noqa: F401
