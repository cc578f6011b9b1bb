"""fairseq-admin translate: lines in, translations out."""

import argparse
import os
import sys

from fairseq_admin_cli.checks import check_installed, check_there

HELP = """\
Translate standard input to standard output with a folder of `fairseq-admin export`: UTF-8 text, one
line for each line, in order. Input of any length takes the same memory; where it pauses, what has
come is translated at once. Progress goes to standard error."""
STDIN = 0  # as a file descriptor
INTERRUPTED, BROKEN_PIPE = 130, 141  # as a shell reports SIGINT and SIGPIPE


def run(options: argparse.Namespace) -> None:
    """Translate to the end of the input; where it cannot go on it ends at once: batches on their
    way are not waited for, and nothing is written any more."""
    check_there("folder", options.folder)
    check_installed("serve", "ctranslate2", "sentencepiece")
    try:
        translate(options)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    except BrokenPipeError:  # nobody reads on, as after `| head`
        os._exit(BROKEN_PIPE)
    except OSError as error:  # of standard input or output, a full disk for example
        print(f"fairseq_admin: cannot read or write: {error}", file=sys.stderr)
        os._exit(1)


def translate(options: argparse.Namespace) -> None:
    """Load the folder, read, write."""
    from fairseq_admin.serving.translate import LineTranslator, Progress, read_lines

    progress = Progress(sys.stderr)
    given = {option: x for option, x in vars(options).items() if option not in ("command", "run")}
    translator = LineTranslator(**given, progress=progress)
    output = sys.stdout.buffer
    for text in translator.translate(read_lines(STDIN, progress.say)):
        output.write(f"{text}\n".encode())
        output.flush()
    progress.say(str(progress))


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", metavar="FOLDER", help="what fairseq-admin export wrote")
    shown, count = "(default: %(default)s)", {"type": positive, "metavar": "N"}
    parser.add_argument("--beam", default=5, help=f"beam size {shown}", **count)
    parser.add_argument(
        "--lenpen", type=float, default=1.0, metavar="X", help=f"length penalty {shown}"
    )
    told = (
        "most tokens of a translation; longer ones are cut and reported (default: %(default)s, as "
    )
    parser.add_argument("--max-len", default=200, help=f"{told}fairseq-generate)", **count)
    told = f"most tokens of a batch, padding included {shown}"
    parser.add_argument("--batch-tokens", default=1024, help=told, **count)
    told = "batches translated at once on a CPU, a core each (default: all cores)"
    parser.add_argument("--threads", help=told, **count)
    parser.add_argument(
        "--device", choices=("cpu", "cuda", "auto"), default="cpu", help=f"where to run {shown}"
    )
