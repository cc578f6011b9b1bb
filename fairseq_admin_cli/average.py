"""fairseq-admin average: one checkpoint from the last ones of a training."""

import argparse
import os

from fairseq_admin_cli.checks import check_output, check_there, refuse

HELP = """\
Write the mean of checkpoints, summed in fp32 whatever precision they hold: of files, or of the last
ones in a folder that fairseq-train wrote. It takes the options of fairseq's average_checkpoints.py,
but for --num-best-checkpoints."""


def run(options: argparse.Namespace) -> None:
    """Find the files, average, write."""
    if bool(options.inputs) == bool(options.more):
        refuse("give checkpoints, or one folder, once: by themselves or after --inputs")
    inputs = options.inputs or options.more
    by_updates = options.num_update_checkpoints is not None
    count = options.num_update_checkpoints if by_updates else options.num_epoch_checkpoints
    if count is None:
        if options.checkpoint_upper_bound is not None:
            refuse("--checkpoint-upper-bound goes with a folder and a number of them")
        check_there("checkpoint", *inputs)
        for path in inputs:
            if os.path.isdir(path):
                refuse(
                    f"{path} is a folder: say how many of its checkpoints, by "
                    "--num-epoch-checkpoints or --num-update-checkpoints"
                )
    else:
        if len(inputs) != 1 or not os.path.isdir(inputs[0]):
            refuse("give the one folder to take the last checkpoints of")
        if count < 1:
            refuse("average at least one checkpoint")
    check_output(options.output, *inputs)

    from fairseq_admin.checkpoints.average import average, last_checkpoints
    from fairseq_admin.checkpoints.checkpoint import write_checkpoint

    if count is not None:
        inputs = last_checkpoints(inputs[0], count, by_updates, options.checkpoint_upper_bound)
        check_output(options.output, *inputs)
    write_checkpoint(average(inputs), options.output)
    print(f"wrote {options.output}, the mean of {', '.join(inputs)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="checkpoints, or one folder")
    parser.add_argument(
        "--inputs", nargs="+", dest="more", metavar="INPUT", help="the same as INPUT"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="checkpoint to write")
    last = parser.add_mutually_exclusive_group()
    last.add_argument(
        "--num-epoch-checkpoints", type=int, metavar="N", help="the last N of the folder's epochs"
    )
    last.add_argument(
        "--num-update-checkpoints",
        type=int,
        metavar="N",
        help="the last N that --save-interval-updates left in the folder",
    )
    parser.add_argument(
        "--checkpoint-upper-bound",
        type=int,
        metavar="M",
        help="leave out those after epoch (or update) M",
    )
