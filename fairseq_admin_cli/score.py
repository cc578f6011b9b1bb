"""fairseq-admin score: what papers report of a system's translations, each with its signature."""

import argparse
import json

from fairseq_admin_cli.checks import add_reading_arguments, check_output, check_there

HELP = """\
Score translations: detokenized BLEU, chrF and TER, tokenized and compound-split BLEU, all by
sacreBLEU, as one JSON record. SYSTEM is what `fairseq-generate` printed, or a plain file with one
translation a line. Of languages that Moses does not cut into words, Chinese say, there is no
tokenized BLEU."""


def markdown(record: dict) -> str:
    """A table of one row of *record*, and below it the signatures."""
    from fairseq_admin.scoring.score import METRICS

    scores = {METRICS[key]: score for key, score in record["scores"].items()}
    name = record["system"].replace("|", r"\|")
    row = [name, *(f"{score['score']:.2f}" for score in scores.values())]
    lines = [
        f"| system | {' | '.join(scores)} |",
        f"|{' --- |' * len(row)}",
        f"| {' | '.join(row)} |",
        "",
        *(f"- {title}: `{score['signature']}`" for title, score in scores.items()),
    ]
    if "significance" in record:
        test = record["significance"]
        ours, theirs = (
            f"{test[x]['mean']:.2f} ± {test[x]['ci']:.2f}" for x in ("system", "baseline")
        )
        lines.append(
            f"- paired bootstrap: mean BLEU {ours}, {test['against']} {theirs}, "
            f"p = {test['p_value']:.4f}: `{test['signature']}`"
        )
    return "\n".join(lines)


def run(options: argparse.Namespace) -> None:
    """Score, write the file, print."""
    inputs = list(filter(None, (options.system, options.reference, options.baseline)))
    check_there("file", *inputs)
    if options.output:
        check_output(options.output, *inputs)

    from fairseq_admin.files import whole_file
    from fairseq_admin.scoring.score import score_files
    from fairseq_admin.text import printable

    wanted = ("moses", "target_lang", "tokenize", "baseline", "name")
    given = {option: getattr(options, option) for option in wanted}
    record = score_files(options.system, options.reference, **given)
    text = json.dumps(record, indent=1)
    if options.output:
        with whole_file(options.output) as f:
            f.write(f"{text}\n")
    print(printable(markdown(record)) if options.markdown else text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "system", metavar="SYSTEM", help="output of fairseq-generate, or plain text"
    )
    add_reading_arguments(parser)
    parser.add_argument(
        "--baseline",
        metavar="SYSTEM",
        help="system to compare with: could the BLEU difference be chance?",
    )
    parser.add_argument("--name", help="name of the system in the record (default: SYSTEM)")
    parser.add_argument("--output", metavar="JSON", help="also write the record to this file")
    parser.add_argument(
        "--markdown", action="store_true", help="print a table row and the signatures instead"
    )
