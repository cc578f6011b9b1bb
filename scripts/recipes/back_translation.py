"""Add back-translations to a bitext: translate monolingual text of the target language by a model
of the reverse direction, in shards, and put the pairs beside the bitext as its second training set.

Usage:   scripts/back_translate.py REVERSE_MODEL.pt --data DATA --output OUT
             [--monolingual FILE ...] [options]
Inputs:  DATA as scripts/prepare.sh made it; monolingual text, a sentence a line, gzipped or not, to
         be treated as DATA was (default: downloaded, where the corpus of DATA has some)
Outputs: OUT/bin: train, valid, test and dictionaries of the bitext, and train1, the
         back-translations; fairseq reads both, `task.upsample_primary` repeats the bitext.
         OUT/mono (shards of subwords), OUT/translations (a file a shard), OUT/pairs, manifest.json

A shard is translated whole or not at all; after a kill the same command goes on with the others.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import List

import torch
from omegaconf.errors import OmegaConfBaseException

from corpora.corpus import Corpus, corpus_of
from corpora.fetch import fetch
from corpora.monolingual import DECODING, BackTranslation
from corpora.prepare import check_generators
from corpora.steps import write_json
from corpora.text import share
from fairseq_admin.checkpoints.checkpoint import read_checkpoint
from fairseq_admin.data_files import check_dictionaries, described, read_dictionary
from fairseq_admin.errors import UserError
from fairseq_admin.files import locked
from fairseq_admin.serving.export import languages
from fairseq_admin.text import read_json


def monolingual(corpus: Corpus, options: argparse.Namespace) -> List[Path]:
    """The files given, or those of the corpus, downloaded."""
    if options.monolingual:
        return options.monolingual
    if not corpus.monolingual:
        raise UserError(f"{corpus.name} has no monolingual text: give --monolingual FILE")
    mirror = options.mirror
    if options.sample:
        check_generators()
        from corpora.sample import write_sample

        mirror = str(options.output / "sample")
        corpus = write_sample(corpus, options.output / "sample")
    folder = options.output / "downloads"
    return [fetch(corpus.sources[name], folder, mirror) for name in corpus.monolingual]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("model", type=Path, help="checkpoint of the reverse direction")
    parser.add_argument("--data", type=Path, required=True, help="the bitext, by prepare.sh")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--monolingual", type=Path, nargs="+", metavar="FILE", help="your own")
    parser.add_argument("--mirror", help="of the downloads, see prepare.sh")
    parser.add_argument(
        "--unreadable",
        type=share,
        metavar="SHARE",
        help="lines of a text that may be left out because they are no UTF-8 (as DATA was made)",
    )
    parser.add_argument("--shard-lines", type=int, default=1_000_000)
    parser.add_argument("--decoders", type=int, default=1, help="GPUs (with --cpu processes)")
    parser.add_argument("--decoding", default=DECODING, help="flags of fairseq-generate")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--processes", type=int, default=cores, help="for all but translating")
    parser.add_argument("--sample", action="store_true", help="tiny generated text")
    options = parser.parse_args()
    for number in ("shard_lines", "decoders", "processes"):
        if getattr(options, number) < 1:
            parser.error(f"--{number.replace('_', '-')}: give 1 or more")
    options.output, data = options.output.resolve(), options.data.resolve()
    made = [data / name for name in ("manifest.json", "bin/made.json")]
    for path in (options.model, *made, *(options.monolingual or [])):
        if not path.is_file():
            raise UserError(f"no such file: {path}")
    if not options.cpu and options.decoders > torch.cuda.device_count():
        raise UserError(
            f"--decoders {options.decoders}: there are {torch.cuda.device_count()} GPUs here; "
            "give fewer, or --cpu"
        )
    try:
        treatment = read_json(data / "manifest.json")["corpus"]
        corpus = corpus_of(treatment)
    except (UserError, OmegaConfBaseException, ValueError, KeyError, TypeError):
        raise UserError(f"{data} was not made by scripts/prepare.sh: give another --data") from None
    source, target = corpus.languages
    state = read_checkpoint(str(options.model))
    found = tuple(languages(state, str(data / "bin")))
    if found != (target, source):
        raise UserError(
            f"{options.model} translates from {found[0]} to {found[1]}, but the text to translate "
            f"is of {target}: give a model of {target} to {source}, trained with -s {target} "
            f"-t {source}"
        )
    sides = [read_dictionary(str(data / "bin"), side) for side in found]
    here = described(found, sides)["dictionaries"]
    check_dictionaries(state, here, "a model that was trained on them", str(options.model))
    if options.unreadable is not None:
        corpus = replace(corpus, unreadable=options.unreadable)
    with locked(options.output / "back-translation", "back-translation"):
        files = monolingual(corpus, options)
        steps = BackTranslation(corpus, data, options.output, options).run(files, options.model)
        manifest = {"corpus": treatment, **steps}
        write_json(options.output / "manifest.json", manifest, sort_keys=True)
    left_out = sum(steps[name].get("left_out", 0) for name in ("mono", "pairs"))
    print(
        f"back_translate: {options.output}: {steps['pairs']['pairs']:,} pairs beside the bitext, "
        f"{left_out:,} left out"
    )


if __name__ == "__main__":
    main()
