"""fairseq-admin: what a user does with Admin beside training."""

import argparse
import importlib
import sys

from fairseq_admin_cli.checks import refuse

COMMANDS = {  # a module beside this one, and what it does
    "profile": "measure a new model's branch variances and show its omegas",
    "doctor": "predict before a training whether it will learn, and what would help",
    "average": "the mean of checkpoints",
    "fold": "make a plain fairseq transformer of an Admin checkpoint",
    "score": "score translations: BLEU as papers report it, chrF, TER",
    "export": "make a folder to serve: a CTranslate2 model and what segments its text",
    "translate": "translate standard input with an exported folder",
    "analyze": "the papers' figures: why a deep Transformer trains or does not",
    "report": "write one HTML page of one or several runs",
}
WITH_REST = ("profile", "doctor", "analyze")  # whose other arguments fairseq parses


class Version(argparse.Action):
    """Prints the release that is installed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # it takes as long as all the others

        print(version("fairseq_admin"))
        parser.exit()


def parser(chosen: str) -> argparse.ArgumentParser:
    """The command line of `fairseq-admin`, with the options of the command *chosen*."""
    main_parser = argparse.ArgumentParser(
        prog="fairseq-admin",
        description="Tools for Transformers trained with Admin.",
        allow_abbrev=False,
    )
    main_parser.add_argument(
        "--version", action=Version, nargs=0, default=argparse.SUPPRESS, help="show the version"
    )
    commands = main_parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for name, summary in COMMANDS.items():
        command_parser = commands.add_parser(
            name,
            help=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == chosen:
            command = importlib.import_module(f"fairseq_admin_cli.{name}")
            command.add_arguments(command_parser)
            command_parser.description = command.HELP
            command_parser.set_defaults(run=command.run)
    return main_parser


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console command."""
    argv = sys.argv[1:] if argv is None else argv
    main_parser = parser(argv[0] if argv else "")
    options, rest = main_parser.parse_known_args(argv)
    if rest and options.command not in WITH_REST:
        main_parser.error(f"unrecognized arguments: {' '.join(rest)}")
    import logging  # it takes as long as all above

    logging.getLogger().setLevel(logging.WARNING)  # fairseq tells INFO, matplotlib DEBUG
    try:
        options.run(options, *([rest] if options.command in WITH_REST else []))
    except ModuleNotFoundError as error:
        refuse(f"{options.command} needs {error.name}, which is not installed")


if __name__ == "__main__":
    main()
