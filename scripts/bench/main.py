"""How fast residual methods train, against fairseq's own Post-LN transformer, and what else people
wait for.

Both models train on the same batch of random tokens in one process, in turn (A B, B A, ...), each
step through fairseq's Trainer: forward, loss, backward, gradient norm, optimizer. Prints a JSON
line a size and method with medians; `ratio` is the method's tokens/s over the other's, pair by
pair, with its quartiles.

Usage: python scripts/bench.py [--layers 6 18 60-12] [--widths 64 128] [--pairs 20] [--dtype bf16]
           [--methods admin deepnorm] [--count]
       python scripts/bench.py --options=--compile-layers --against admin
       python scripts/bench.py --dtype bf16 --against admin --against-dtype fp32
       python scripts/bench.py --profile DATA_BIN [--seeds 20]
       python scripts/bench.py --decode CHECKPOINT DATA_BIN [--pairs 3] [--threads 1]
       python scripts/bench.py --prepare TEXT.de TEXT.en [--corpus wmt14_en_fr] [--subwords 40000]
       python scripts/bench.py --before COMMIT --commands 'start: fairseq-admin --help' [...]

With --count the operators of a step are counted instead, forward, backward and optimizer apart. The
second compares an option with its absence, the third two precisions. The fourth times the profile
before training on real text, or shows over seeds whether its draw is biased. The fifth decodes the
test set with fairseq-generate's generator and with the exported model (CTranslate2, float32 and
int8), in turn, beam 5. The sixth times the steps of scripts/prepare.sh on a text: tokens, subwords,
binarizing. The last runs whole commands on the code of an earlier commit and on this, in turn; the
plugin is then `--user-dir $PYTHONPATH/fairseq_admin`.
"""

import argparse
import json
import logging
from importlib.metadata import version
from pathlib import Path

import torch

from bench.training import PLAIN, bench_training, print_peak
from corpora.steps import write_json
from fairseq_admin.methods import METHODS

DTYPES = ["fp32", "fp16", "bf16"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--layers", nargs="+", default=["6", "18"], help="of a stack, or 60-12")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 96, 128, 256])
    parser.add_argument("--count", action="store_true", help="operators of a step instead of time")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["admin"])
    parser.add_argument("--options", default="", help="of fairseq-train, for the methods")
    parser.add_argument("--against", choices=[*METHODS, PLAIN], default=PLAIN)
    parser.add_argument("--profile", metavar="DATA", help="time the profile on this binarized text")
    parser.add_argument("--seeds", type=int, help="of --profile: show what its draw does to omega")
    parser.add_argument("--tokens", type=int, default=2000, help="padded tokens of the batch")
    parser.add_argument("--pairs", type=int, default=20, help="counted steps of each model")
    parser.add_argument("--warmup", type=int, default=3, help="steps of each model not counted")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument(
        "--against-dtype", choices=DTYPES, help="of the other (default: as --dtype)"
    )
    parser.add_argument("--threads", type=int, help="on the CPU")
    parser.add_argument("--decode", nargs=2, metavar=("CHECKPOINT", "DATA"), help="an Admin model")
    parser.add_argument("--subset", default="test", help="of DATA, to decode")
    parser.add_argument("--prepare", nargs=2, type=Path, metavar="FILE", help="two aligned files")
    parser.add_argument("--corpus", default="wmt14_en_fr", help="as which they are treated")
    parser.add_argument("--subwords", type=int, help="types (default: of --corpus)")
    parser.add_argument("--before", metavar="COMMIT", help="of this repository")
    parser.add_argument("--commands", nargs="+", default=[], help="NAME: COMMAND, for --before")
    parser.add_argument("--output", help="JSON file of all rows; so far in .partial")
    parser.add_argument("--peak-of", choices=[*METHODS, PLAIN], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if bool(options.before) != bool(options.commands):
        parser.error("--before COMMIT and --commands: give both")
    for told in options.commands:
        if not told.partition(": ")[2].strip():
            parser.error(f"--commands {told}: give NAME: COMMAND")
    partial = Path(f"{options.output}.partial")
    logging.disable(logging.WARNING)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peak_of:
        print_peak(options)
        return
    if options.prepare:
        from bench.preparation import bench_preparation

        record = bench_preparation(options)
        print(json.dumps(record))
    else:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        record = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
        if options.decode:
            from bench.decoding import bench_decoding as measure  # needs CTranslate2

            record["ctranslate2"] = version("ctranslate2")
        elif options.profile:
            from bench.profiles import bench_profiles as measure
        elif options.before:
            from bench.commits import bench_commits as measure

            record["before"] = options.before
        elif options.count:
            from bench.operators import bench_operators as measure
        else:
            record["dtype"], measure = options.dtype, bench_training
        print(json.dumps(record))
        record["rows"] = []
        for row in measure(options):
            record["rows"].append(row)
            print(json.dumps(row), flush=True)
            if options.output:  # a bench may be ended before its last row
                write_json(partial, record)
    if options.output:
        write_json(options.output, record)
        partial.unlink(missing_ok=True)
