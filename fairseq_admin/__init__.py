"""Admin for fairseq: deep Post-LN Transformers that train. Importing it registers the plugin where
fairseq is installed; scoring, serving and reports need no fairseq."""

from importlib.util import find_spec

__version__ = "0.1.0"

if find_spec("fairseq"):
    from fairseq_admin import architectures, optim, task, weights_only
