"""fairseq-admin fold: from an Admin checkpoint to one of fairseq's own `transformer`."""

import argparse

from fairseq_admin_cli.checks import check_output, check_there

HELP = """\
Fold the omegas of a checkpoint into its other weights. What comes out is a checkpoint of fairseq's
own Post-LN `transformer` that gives the same translations and needs no plugin. Before it is written
both models forward the same random batch, and the largest difference is printed."""


def run(options: argparse.Namespace) -> None:
    """Fold, tell the difference."""
    check_there("checkpoint", options.input)
    check_output(options.output, options.input)

    from fairseq_admin.checkpoints.fold import fold_checkpoint

    print(fold_checkpoint(options.input, options.output, options.keep_training_state))
    print(f"wrote {options.output}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("input", metavar="IN", help="Admin checkpoint")
    parser.add_argument("output", metavar="OUT", help="checkpoint to write")
    parser.add_argument(
        "--keep-training-state",
        action="store_true",
        help="keep the training progress and the optimizer's moments, to train on as a plain "
        "transformer (default: the model alone)",
    )
