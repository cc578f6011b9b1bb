"""How translations and references are read: options that commands share."""

import argparse


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say how translations and references are read."""
    parser.add_argument(
        "--reference", metavar="FILE", help="raw text, one line a sentence (default: T- lines)"
    )
    parser.add_argument(
        "--moses",
        action="store_true",
        help="what is given (T- lines too) is Moses-tokenized text; else raw",
    )
    parser.add_argument(
        "--target-lang",
        metavar="LANG",
        required=True,
        help="language of the translations, as de or zh: it decides how they are cut into words",
    )
    parser.add_argument(
        "--tokenize",
        metavar="NAME",
        help="sacreBLEU's tokenizer (default: its own for zh, ja and ko, else 13a)",
    )
