"""Make a corpus ready for fairseq-train: download or generate it, tokenize, clean, split, subwords,
binarize.

Usage:   scripts/prepare.sh CORPUS [options]
         scripts/prepare.sh [CORPUS --output DIR] --train a.de a.en --valid v.de v.en
                            [--test t.de t.en] [options]
Inputs:  data/CORPUS/corpus.yaml; or your own text, one sentence a line or in IWSLT's or NIST's
         markup, gzipped or not, treated as CORPUS is, or as data/own/corpus.yaml says
Outputs: in --output: bin/ (for fairseq-train), raw/{valid,test}.LANG (to score against),
         spm/spm.model, tok/ and bpe/ (the text on its way), downloads/, extracted/ or generated/,
         manifest.json (pairs read, kept and left out; sha256 of every file)

Every step works in NAME.partial and is renamed when it is whole. What is finished is verified by
its checksums and not done again; an interrupted download goes on where it stopped. The same input
gives the same bytes on any number of processes.
"""

import argparse
import json
import os
import re
import signal
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

from corpora.corpus import DATA, SPLITS, Corpus, Text, known_corpora, load_corpus
from corpora.preparation import Preparation
from corpora.steps import run_command
from corpora.text import share
from fairseq_admin.errors import UserError
from fairseq_admin.files import locked, whole_file
from fairseq_admin.scoring.moses import TWO, language
from fairseq_admin.scoring.outputs import check_raw
from fairseq_admin.text import markup, read_head

BARE, ESCAPE = re.compile(r"['\"<>|\[\]]"), re.compile(r"&(?:apos|quot|amp|lt|gt|#\d+);")
GENERATORS = ("babel", "num2words")  # packages by which text is generated


def own_text(options: argparse.Namespace) -> Tuple[Dict[str, Tuple[Text, ...]], Tuple[str, str]]:
    """The texts given by --train, --valid and --test, and their languages."""
    if not options.valid:
        raise UserError("give --valid FILE FILE with --train")
    texts, languages = {}, languages_of(options.train)
    for lang in languages:
        language(lang)  # scoring and serving ask for it
    for split in SPLITS:
        files = getattr(options, split)
        if files:
            check_sides(split, files, languages)
            paths = tuple(map(os.path.abspath, files))
            texts[split] = (Text(paths, format=markup(read_head(files[0]))),)
            raw = texts[split][0].format == "plain" and not options.tokenized
            for file in files if raw else ():
                lines = read_head(file).decode("utf-8", "replace").split("\n")
                check_raw(file, lines, "give raw text, or Moses' tokens by --tokenized")
    return texts, languages


def language_of(file: Path) -> str:
    """The language of a file by its name, NAME.LANGUAGE; nothing where that does not end in one."""
    name = re.sub(r"(\.(xml|sgml?|txt))?(\.gz)?$", "", file.name)
    match = re.fullmatch(r".*\.([A-Za-z]{2,3}(?:[-_]\w+)?)", name)
    return match.group(1).replace("-", "_") if match else ""  # fairseq has - between languages


def languages_of(files: Sequence[Path]) -> Tuple[str, str]:
    """The languages of two files, by their names."""
    languages = tuple(map(language_of, files))
    if "" in languages:
        file = files[languages.index("")]
        raise UserError(f"{file}: call it NAME.LANGUAGE, as in train.de or train.de.gz")
    if languages[0] == languages[1]:
        raise UserError(f"two files of the language {languages[0]}: call them NAME.LANGUAGE")
    return languages


def check_sides(split: str, files: Sequence[Path], languages: Tuple[str, str]) -> None:
    """Raise UserError where a file is by its name of another language than its side of --train. Of
    three letters that may be no language, as in valid.src."""
    codes = [code_of(side) for side in languages]
    for file, code, side in zip(files, codes, languages):
        name = language_of(file)
        found = code_of(name)
        exchanged = name != side and name in languages
        if exchanged or (found != code and (found in codes or len(found) == 2)):
            raise UserError(
                f"--{split}: {file} is {name} by its name, but this side of --train is "
                f"{side}: give the files in the same order, and of the same languages"
            )


def code_of(name: str) -> str:
    """The code of a language without its region or script, of two letters where there is one."""
    code = name.split("_")[0].lower()
    return TWO.get(code, code)


def as_tokenized(corpus: Corpus) -> Corpus:
    """*corpus* where its text is Moses' tokens already. How they were made its first lines show:
    raw text that a model is to translate must become such tokens too. UserError where it cannot."""
    heads = [read_head(path).decode("utf-8", "replace") for path in corpus.train[0].files]
    if any(map(BARE.search, heads)) and not any(map(ESCAPE.search, heads)):
        raise UserError(
            "--tokenized: no character is escaped (tokenizer.perl -no-escape), as those of what is "
            "translated later will be: give the text as it was before, or escape them"
        )
    return replace(
        corpus,
        tokenized=True,
        moses=True,
        aggressive=corpus.aggressive or any(" @-@ " in head for head in heads),
        lowercase=corpus.lowercase
        or (any(map(str.islower, heads)) and all(head == head.lower() for head in heads)),
    )


def check_generators() -> None:
    """Raise UserError where packages are missing by which text is generated."""
    missing = [name for name in GENERATORS if not find_spec(name)]
    if missing:
        raise UserError(
            f"no {' and no '.join(missing)} here, which text is generated by: pip install "
            "'fairseq_admin[demo]', or scripts/setup.sh"
        )


def generated(corpus: Corpus, folder: Path) -> Corpus:
    """*corpus* with its text, which its generator writes to *folder*, or finds there as it was."""
    run_command([sys.executable, DATA / corpus.name / corpus.generator, folder])
    texts = {
        split: tuple(replace(t, files=tuple(str(folder / name) for name in t.files)) for t in texts)
        for split, texts in corpus.sides().items()
    }
    return replace(corpus, **texts)


def write_manifest(corpus: Corpus, steps: Dict[str, Dict[str, Any]], out: Path) -> None:
    """What the folder holds: treatment, counts and checksums."""
    manifest = {"corpus": asdict(corpus), **steps}
    for name in SPLITS:  # this machine's paths say nothing of the text
        manifest["corpus"].pop(name)
    with whole_file(out / "manifest.json") as f:
        f.write(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="prepare.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="?", help=f"one of {', '.join(known_corpora())}")
    for split in SPLITS:
        parser.add_argument(f"--{split}", nargs=2, type=Path, metavar="FILE", help="your own text")
    parser.add_argument("--output", type=Path, help="folder (default: runs/data/CORPUS[-sample])")
    parser.add_argument(
        "--mirror", help="http(s):// or file:// address, or a folder, of the archives"
    )
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--subwords", type=int, help="types, both languages together")
    parser.add_argument(
        "--unreadable",
        type=share,
        metavar="SHARE",
        help="lines of a training text that may be left out because they are no UTF-8 (0.01)",
    )
    parser.add_argument("--tokenized", action="store_true", help="your text is Moses-tokenized")
    parser.add_argument("--sample", action="store_true", help="a tiny generated sample instead")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at once, within SentencePiece too
    if not (options.corpus or options.train):
        parser.error("give a corpus, or your own text by --train and --valid")
    if (options.valid or options.test or options.tokenized) and not options.train:
        parser.error("--valid, --test and --tokenized go with --train")
    if options.corpus and options.train and not options.output:
        parser.error(f"your own text is not {options.corpus}: give --output")
    if options.sample and options.train:
        parser.error("--sample and --train are two texts: give one")
    for number in ("processes", "subwords"):
        if getattr(options, number) is not None and getattr(options, number) < 1:
            parser.error(f"--{number}: give 1 or more")
    corpus = load_corpus(options.corpus or "own")
    if options.sample and corpus.generator:
        raise UserError(f"{corpus.name} is generated as it is: prepare it without --sample")
    name = f"{corpus.name}{'-sample' * options.sample}"
    out = Path(os.path.abspath(options.output or DATA.parent / "runs" / "data" / name))
    if options.train:
        texts, languages = own_text(options)
        corpus = corpus.with_texts(texts, languages)
    if options.tokenized:
        corpus = as_tokenized(corpus)
    given = {name: getattr(options, name) for name in ("subwords", "unreadable")}
    corpus = replace(corpus, **{name: n for name, n in given.items() if n is not None})
    if not corpus.train:
        raise UserError("your own text goes by --train FILE FILE and --valid FILE FILE")
    if options.sample or corpus.generator:
        check_generators()
    with locked(out / "preparation", "preparation"):
        mirror = options.mirror
        if corpus.generator:
            corpus = generated(corpus, out / "generated")
        if options.sample:
            from corpora.sample import write_sample  # not everybody has what it needs

            mirror = str(out / "sample")
            corpus = write_sample(corpus, Path(mirror))
        steps = Preparation(corpus, out, options.processes).run(mirror)
        write_manifest(corpus, steps, out)
    found = steps["bpe"]["pairs"]
    pairs = ", ".join(f"{split} {found[split]:,}" for split in SPLITS if found.get(split))
    dropped = [sum(counts.values()) for counts in steps["tok"]["left_out"].values()]
    left_out = sum(dropped) + sum(steps["bpe"]["left_out"].values())
    told = f"{left_out:,} left out (see manifest.json), " if left_out else ""
    print(f"prepare: {out}: {told}{pairs} pairs")


if __name__ == "__main__":
    main()
