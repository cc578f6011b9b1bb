"""fairseq-admin: what a user does with Admin beside training."""

import argparse
import importlib
import logging
import sys
from typing import List, Optional

from fairseq_admin import __version__
from fairseq_admin.errors import UserError

COMMANDS = {  # a module of fairseq_admin.commands, and what it does
    "profile": "measure a new model's branch variances and show its omegas",
    "average": "the mean of checkpoints",
    "fold": "make a plain fairseq transformer of an Admin checkpoint",
    "score": "score translations: BLEU as papers report it, chrF, TER",
    "export": "make a folder to serve: a CTranslate2 model and what segments its text",
    "translate": "translate standard input with an exported folder",
    "analyze": "the papers' figures: why a deep Transformer trains or does not",
    "report": "write one HTML page of one or several runs",
}
WITH_REST = ("profile", "analyze")  # whose other arguments fairseq parses


def parser(chosen: str) -> argparse.ArgumentParser:
    """The command line of `fairseq-admin`, with the options of the command *chosen*: the others,
    and the packages that they need, are not imported.

    Raises:
        UserError: where a package that the command needs is missing.
    """
    main_parser = argparse.ArgumentParser(
        prog="fairseq-admin",
        description="Tools for Transformers trained with Admin.",
        allow_abbrev=False,
    )
    main_parser.add_argument("--version", action="version", version=__version__)
    commands = main_parser.add_subparsers(
        title="commands", dest="name", metavar="COMMAND", required=True
    )
    for name, summary in COMMANDS.items():
        command_parser = commands.add_parser(
            name,
            help=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == chosen:
            try:
                command = importlib.import_module(f"fairseq_admin.commands.{name}")
                command.add_arguments(command_parser)
            except ModuleNotFoundError as error:
                raise UserError(f"{name} needs {error.name}, which is not installed") from None
            command_parser.description = command.HELP
            command_parser.set_defaults(run=command.run)
    return main_parser


def main(argv: Optional[List[str]] = None) -> None:
    """Entry point of the console command."""
    logging.getLogger().setLevel(logging.WARNING)  # fairseq tells INFO, matplotlib DEBUG
    argv = sys.argv[1:] if argv is None else argv
    main_parser = parser(argv[0] if argv else "")
    options, rest = main_parser.parse_known_args(argv)
    if options.name in WITH_REST:
        options.run(options, rest)
        return
    if rest:
        main_parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.run(options)


if __name__ == "__main__":
    main()
