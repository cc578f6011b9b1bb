"""fairseq-admin: what a user does with Admin beside training."""

import argparse
import logging
from typing import List, Optional

from fairseq_admin.commands import (
    analyze,
    average,
    export,
    fold,
    profile,
    report,
    score,
    translate,
)

COMMANDS = (profile, average, fold, score, export, translate, analyze, report)
WITH_REST = (profile, analyze)  # whose other arguments fairseq parses


def parser() -> argparse.ArgumentParser:
    """The command line of `fairseq-admin`."""
    main_parser = argparse.ArgumentParser(
        prog="fairseq-admin",
        description="Tools for Transformers trained with Admin.",
        allow_abbrev=False,
    )
    commands = main_parser.add_subparsers(
        title="commands", dest="name", metavar="COMMAND", required=True
    )
    for command in COMMANDS:
        command_parser = commands.add_parser(
            command.__name__.rsplit(".", 1)[-1],
            help=command.SUMMARY,
            description=command.HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(command_parser)
        command_parser.set_defaults(command=command)
    return main_parser


def main(argv: Optional[List[str]] = None) -> None:
    """Entry point of the console command."""
    logging.getLogger().setLevel(logging.WARNING)  # fairseq tells INFO, matplotlib DEBUG
    main_parser = parser()
    options, rest = main_parser.parse_known_args(argv)
    if options.command in WITH_REST:
        options.command.run(options, rest)
        return
    if rest:
        main_parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.command.run(options)


if __name__ == "__main__":
    main()
