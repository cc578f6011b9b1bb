"""fairseq-admin export: a folder to serve."""

import argparse

from fairseq_admin_cli.checks import check_installed, check_output, check_there

HELP = """\
Make one folder of a checkpoint that `fairseq-admin translate` serves, on another machine too: a
CTranslate2 model with the SentencePiece models and dictionaries. An Admin checkpoint is folded
first; a folded one, or one of fairseq's own transformer, is taken as it is. Without
--sentencepiece, text is taken and given as tokens separated by spaces."""
QUANTIZATIONS = ("int8", "int8_float32", "int16", "float16", "bfloat16", "float32")


def run(options: argparse.Namespace) -> None:
    """Fold where needed, export."""
    check_there("checkpoint", options.checkpoint)
    check_there("folder", options.data)
    check_there("SentencePiece model", *options.sentencepiece)
    check_output(options.output)
    check_installed("serve", "ctranslate2")

    from fairseq_admin.serving.export import export_model

    wanted = ("sentencepiece", "quantization", "moses", "source_lang", "target_lang", "force")
    given = {option: getattr(options, option) for option in wanted}
    difference = export_model(options.checkpoint, options.data, options.output, **given)
    if difference:
        print(difference)
    print(f"wrote {options.output}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="Admin, folded or plain")
    parser.add_argument(
        "--data", required=True, metavar="DATA_BIN", help="folder with the dictionaries"
    )
    parser.add_argument(
        "--sentencepiece",
        nargs="+",
        default=(),
        metavar="MODEL",
        help="SentencePiece model of both languages, or those of source and target",
    )
    parser.add_argument(
        "--moses",
        nargs="*",
        choices=("normalize", "aggressive", "lowercase"),
        metavar="HOW",
        help="the data is Moses-tokenized: translate takes and gives raw text all the same; "
        "normalize, aggressive, lowercase: the source is that too (punctuation; `-a` of "
        "tokenizer.perl); data of scripts/prepare.sh says itself what it went through",
    )
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}-lang",
            metavar="LANG",
            help=f"language of the {side} side, if the data calls it otherwise",
        )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to make")
    parser.add_argument(
        "--quantization", choices=QUANTIZATIONS, help="weight type (default: float32)"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace FOLDER where an earlier export made it"
    )
