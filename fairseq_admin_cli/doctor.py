"""fairseq-admin doctor: whether a training will learn anything, before it starts."""

import argparse
import json
import logging
import sys
import time
import warnings

from fairseq_admin_cli.checks import check_installed, check_output, refuse

HELP = """\
Predict, before a training starts, whether it will learn, and what would help. A copy of the new
model takes a few steps on a few sentences; nothing is trained, and only --plot writes a file. Give
the arguments of `fairseq-train`, or --config-name and overrides as for `fairseq-hydra-train`;
--task and --user-dir are filled in. The exit code is 0 whatever the verdict."""
SECONDS = 50  # within which remedies are tried


def run(options: argparse.Namespace, rest: list[str]) -> None:
    """Examine and print; a mistake ends with exit code 2, as those that argparse finds."""
    try:
        show(examined(options, rest), options)
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise
        print(error.code, file=sys.stderr)
        sys.exit(2)


def examined(options: argparse.Namespace, rest: list[str]) -> dict:
    """Read the configuration of the training, and examine it."""
    until = time.monotonic() + SECONDS
    if options.config_dir and not options.config_name:
        refuse("--config-dir is of --config-name: give that too")
    if options.plot:
        check_output(options.plot)
        check_installed("plot", "matplotlib")
    from fairseq_admin.arguments import hydra_config, training_config
    from fairseq_admin.doctor.examination import examine

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hydra and torch about fairseq, nothing a user can mend
        logging.getLogger("hydra").setLevel(logging.WARNING)
        if options.config_name:
            config = hydra_config(options.config_dir or "configs", options.config_name, rest)
        else:
            config = training_config(rest, any_task=True)
        logging.getLogger().setLevel(logging.WARNING)  # hydra has it tell all
        return examine(config, until)


def show(result: dict, options: argparse.Namespace) -> None:
    """Print and draw what was found."""
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        from fairseq_admin.doctor.examination import lines

        print("\n".join(lines(result, hydra=bool(options.config_name))))
    if options.plot:
        from fairseq_admin.analysis.plotting import plot_doctor
        from fairseq_admin.files import whole_file

        with whole_file(options.plot, "wb") as picture:
            plot_doctor(result, picture)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.usage = (
        "fairseq-admin doctor [-h] [--json] [--plot PNG] DATA --arch ARCH [arguments of "
        "fairseq-train ...]\n       fairseq-admin doctor [-h] [--json] [--plot PNG] --config-name "
        "NAME [--config-dir DIR] task.data=DATA [overrides ...]"
    )
    parser.add_argument("--json", action="store_true", help="print all findings as JSON")
    parser.add_argument("--plot", metavar="PNG", help="also plot what the first steps do")
    parser.add_argument("--config-name", metavar="NAME", help="hydra config, instead of arguments")
    parser.add_argument("--config-dir", metavar="DIR", help="its folder (default: configs)")
