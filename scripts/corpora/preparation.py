"""The steps from archives to what fairseq-train reads, one folder a step."""

import json
import os
import sys
from collections import Counter
from functools import partial
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from shutil import copyfile
from typing import Any, Callable, Dict, List, Optional

from corpora import reading, subwords, text
from corpora.archive import extract
from corpora.corpus import SPLITS, Clean, Corpus, Text
from corpora.fetch import fetch
from corpora.parallel import batches, in_order, progress
from corpora.splits import Splits, read_lines
from corpora.steps import combined, discard, made, run_step, sha256
from fairseq_admin.errors import UserError
from fairseq_admin.files import writing
from fairseq_admin.scoring import moses

MODULES = [Path(module.__file__) for module in (reading, text, moses)]  # these decide the tokens
STEPS = ("tok", "spm", "bpe", "raw", "bin")  # each made of those before it
POSITIONS = 1023  # subwords of a sentence that fairseq's 1024 positions hold beside its end


class Preparation:
    """One corpus on its way into the folder *out*, with so many *processes*."""

    def __init__(self, corpus: Corpus, out: Path, processes: int) -> None:
        self.corpus, self.out, self.processes = corpus, out, processes
        self.files: Dict[str, Path] = {}  # downloads, by their names in `sources`
        self.versions = {name: version(name) for name in ("sacremoses", "sentencepiece")}

    def fetch(self, mirror: Optional[str] = None) -> Dict[str, str]:
        """Download and unpack what the bitext lies in; checksums of downloads, and of own files."""
        members: Dict[str, List[str]] = {}
        for t in (t for texts in self.corpus.sides().values() for t in texts):
            for name in [t.archive] if t.archive else t.files:
                members.setdefault(name, []).extend(t.files if t.archive else [])
        for name, files in members.items():
            if name in self.corpus.sources:
                source = self.corpus.sources[name]
                self.files[name] = fetch(source, self.out / "downloads", mirror)
            elif not (os.path.isfile(name) and os.access(name, os.R_OK)):
                raise UserError(f"no such file, or it cannot be read: {name}")
            if files:
                extract(self.files[name], files, self.out / "extracted" / name)
        return {name: sha256(self.files.get(name, Path(name))) for name in members}

    def paths(self, t: Text) -> List[Path]:
        """The two files of a text, unpacked."""
        if t.archive:
            return [self.out / "extracted" / t.archive / name for name in t.files]
        return [self.files.get(name, Path(name)) for name in t.files]

    def tokenize(self, sums: Dict[str, str]) -> Dict[str, Any]:
        """Step `tok`: clean text of every split, in Moses tokens unless it is to stay as it is."""
        code = [sha256(path) for path in MODULES]
        texts = [
            [split, t.format, [sums[name] for name in t.files]]
            if t.archive is None
            else [split, t.format, sums[t.archive], t.files]
            for split in SPLITS
            for t in getattr(self.corpus, split)
        ]
        digest = combined(self.corpus.digest(), self.corpus.unreadable, texts, code, self.versions)

        def make(folder: Path) -> Dict[str, Any]:
            languages, left_out = self.corpus.languages, {}
            raw_names = [f"raw.{lang}" for lang in languages]
            with Splits(folder, languages) as tokens, Splits(folder, raw_names) as raw:
                for split in SPLITS[::-1]:  # what is wrong in a small file is told at once
                    left_out[split] = Counter()
                    for t in getattr(self.corpus, split):
                        left_out[split] += self.treat(t, split, tokens, raw)
            left_out = {s: c for s, c in left_out.items() if c}
            check_any(tokens.pairs, left_out)
            return {"pairs": tokens.pairs, "left_out": left_out}

        return self.step("tok", digest, make)

    def treat(self, t: Text, split: str, tokens: Splits, raw: Splits) -> Counter:
        """Write the pairs of a text to *tokens*, and raw text of those held out to *raw*; of
        training text every so-many-th pair is held out for validation. Pairs left out by reason."""
        training, every = split == "train", self.corpus.valid_every
        left_out: Counter = Counter()
        paths = self.paths(t)
        with progress(f"tok: {split}, {paths[0].name}") as show:
            pairs = batches(reading.read_pairs(*paths, t.format, show))
            raw_too, test = not training or bool(every), split == "test"
            make = partial(text.Treatment, self.corpus, training, raw_too, test, t.format)
            treated = in_order(make, pairs, self.processes)
            for batch in text.readable(treated, paths, self.corpus, training):
                left_out += batch.dropped
                for i, pair in enumerate(batch.tokens):
                    read = tokens.pairs["train"] + tokens.pairs["valid"]
                    held_out = training and every and (read + 1) % every == 0
                    name = "valid" if held_out else split
                    tokens.write(name, pair)
                    if name != "train":
                        raw.write(name, batch.raw[i])
        return left_out

    def keep_raw(self, bpe: Dict[str, Any]) -> Dict[str, Any]:
        """Step `raw`: the untouched text of the held-out splits, to translate and score against."""

        def make(folder: Path) -> Dict[str, Any]:
            for name in (n for n in bpe["files"] if ".raw." in n):
                copyfile(self.out / "bpe" / name, folder / name.replace(".raw.", "."))
            return {}

        return self.step("raw", combined(bpe), make)

    def train_subwords(self, tok: Dict[str, Any]) -> Dict[str, Any]:
        """Step `spm`: joint BPE of the training text."""
        how = (self.corpus.subwords, self.corpus.character_coverage, self.corpus.symbols)
        paths = [self.out / "tok" / f"train.{lang}" for lang in self.corpus.languages]
        settings = [how, subwords.SAMPLE, self.versions["sentencepiece"]]
        digest = combined([tok["files"][path.name] for path in paths], settings)

        def make(folder: Path) -> Dict[str, Any]:
            subwords.train(paths, tok["pairs"]["train"], folder / subwords.MODEL, *how)
            return {"subwords": self.corpus.subwords}

        return self.step("spm", digest, make)

    def encode(self, tok: Dict[str, Any], spm: Dict[str, Any]) -> Dict[str, Any]:
        """Step `bpe`: every split in pieces; of training text the pairs of fitting length; and the
        raw text of those held out that stay."""
        clean = self.corpus.clean_subwords or Clean((1, POSITIONS))
        digest = combined(tok["files"], spm["files"], repr(clean))

        def make(folder: Path) -> Dict[str, Any]:
            raw_names = [f"raw.{lang}" for lang in self.corpus.languages]
            with Splits(folder, self.corpus.languages) as pieces, Splits(folder, raw_names) as raw:
                left_out = {
                    s: self.encode_split(s, total, clean, pieces, raw)
                    for s, total in tok["pairs"].items()
                }
            left_out = {s: n for s, n in left_out.items() if n}
            check_any(pieces.pairs, left_out, f" by their subwords, {clean}")
            return {"pairs": pieces.pairs, "left_out": left_out}

        return self.step("bpe", digest, make)

    def encode_split(
        self, split: str, total: int, clean: Clean, pieces: Splits, raw: Splits
    ) -> int:
        """Write *split* to *pieces*, its raw text, if kept, to *raw*; pairs left out."""
        tok, languages = self.out / "tok", self.corpus.languages
        paths = [tok / f"{split}.{lang}" for lang in languages]
        held_out_file = split == "test" or (split == "valid" and self.corpus.valid)
        clean = None if held_out_file else clean
        make = partial(subwords.Encoder, self.out / "spm" / subwords.MODEL, clean)
        pairs, raw_pairs = batches(read_lines(paths)), repeat(None)
        if split != "train":
            raw_pairs = read_lines([tok / f"{split}.raw.{lang}" for lang in languages])
        done = left_out = 0
        with progress(f"bpe: {split}") as show:
            for batch, longest in in_order(make, pairs, self.processes):
                if held_out_file and longest[0] > POSITIONS:
                    raise UserError(
                        f"{split}, line {done + longest[1] + 1}: a sentence of {longest[0]} "
                        f"subwords, but fairseq takes {POSITIONS}: shorten it or take the pair out"
                    )
                done += len(batch)
                for pair, raw_pair in zip(batch, raw_pairs):
                    if pair is None:
                        left_out += 1
                        continue
                    pieces.write(split, pair)
                    if raw_pair:
                        raw.write(split, raw_pair)
                show(done / total)
        return left_out

    def binarize(self, spm: Dict[str, Any], bpe: Dict[str, Any]) -> Dict[str, Any]:
        """Step `bin`: what fairseq-preprocess would make of the pieces, of which the sides share a
        dictionary. (Its pool waits without end for a process that was killed.)"""
        source, target = self.corpus.languages
        model = self.out / "spm" / subwords.MODEL

        def make(folder: Path) -> Dict[str, Any]:
            for lang in self.corpus.languages:
                subwords.dictionary(model).save(str(folder / f"dict.{lang}.txt"))
                for split, total in bpe["pairs"].items():
                    pieces = self.out / "bpe" / f"{split}.{lang}"
                    prefix = folder / f"{split}.{source}-{target}.{lang}"
                    subwords.binarize(pieces, total, model, prefix, self.processes)
            return {}

        return self.step("bin", combined(spm["files"], bpe["files"]), make)

    def step(self, name: str, digest: str, make: Callable[[Path], Dict[str, Any]]) -> Any:
        """A step of STEPS; what was made after it, and the manifest of all, go before it is made
        anew."""
        if made(self.out / name).get("digest") != digest:
            if (self.out / "manifest.json").exists():
                told = f"{self.out} was made of other text or options, or by another release"
                print(f"prepare: {told}: it is made anew", file=sys.stderr)
            self.forget()
            for later in STEPS[STEPS.index(name) :]:
                discard(self.out / later)
        try:
            return run_step(self.out / name, digest, make)
        except UserError:
            self.forget()
            raise

    def forget(self) -> None:
        """Remove the manifest, which says that all is finished."""
        manifest = self.out / "manifest.json"
        with writing(manifest):
            # and what a killed process left of it
            for path in (manifest, *self.out.glob("manifest.json.*.partial")):
                path.unlink(missing_ok=True)

    def run(self, mirror: Optional[str] = None) -> Dict[str, Any]:
        """All steps; what each made.

        Raises:
            UserError: where one fails, or there are not as many pairs as published.
        """
        for name in STEPS:
            made(self.out / name)  # somebody else's folder is told before hours of work
        manifest = self.out / "manifest.json"
        if manifest.exists() and b'"corpus"' not in manifest.read_bytes():
            raise UserError(f"{manifest} was not made here: move it, or give another --output")
        tok = self.tokenize(self.fetch(mirror))
        spm = self.train_subwords(tok)
        bpe = self.encode(tok, spm)
        self.corpus.check_lines(bpe["pairs"])
        raw = self.keep_raw(bpe)
        return {"tok": tok, "spm": spm, "bpe": bpe, "raw": raw, "bin": self.binarize(spm, bpe)}


def check_any(pairs: Dict[str, int], left_out: Dict[str, Any], why: str = "") -> None:
    """Raise UserError where no pair is left to train on or to validate with."""
    for split in ("train", "valid"):
        if not pairs[split]:
            reasons = (
                f"; left out{why}: {json.dumps(left_out)}" if left_out else ": too little text"
            )
            raise UserError(f"no pair for {split}{reasons}")
