"""Back-translations of monolingual text, in shards, put beside the bitext."""

import os
import queue
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np
from fairseq.data.indexed_dataset import best_fitting_int_dtype

from corpora import subwords, text
from corpora.corpus import DATA, Clean, Corpus
from corpora.parallel import batches, in_order, progress, visible_devices
from corpora.reading import Line, Lines, read_text
from corpora.splits import Splits, read_lines
from corpora.steps import BIN, combined, discard, made, run_command, run_step, sha256, take_over
from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file
from fairseq_admin.scoring import outputs

CLEAN = Clean((1, 250), 1.5)  # subwords, as fairseq's extract_bt_data.py is used
DECODING = "--beam 1 --sampling --seed 1"  # Edunov et al. 2018: sampling beats beam search here
ENOUGH = 10  # lines that tell a language; ten always did, single ones not
KNOWN = 1_000_000  # subwords of either side of the bitext that tell one language from the other


class BackTranslation:
    """Text of the language `corpus.languages[1]` on its way into *out*, beside the bitext that
    scripts/prepare.sh made in *data*. Of the *options* of scripts/back_translate.py those that say
    how it is translated: `shard_lines`, `decoders` (GPUs, processes where `cpu`), `decoding`, and
    `processes` for the rest."""

    def __init__(self, corpus: Corpus, data: Path, out: Path, options: Namespace) -> None:
        self.corpus, self.data, self.out, self.options = corpus, data, out, options
        self.source, self.target = corpus.languages
        self.model = data / "spm" / subwords.MODEL
        self.clean = corpus.clean_subwords or CLEAN
        self.read = 0  # lines of monolingual text

    def shards(self, files: List[Path]) -> Dict[str, Any]:
        """Step `mono`: the text in subwords, so many lines a file."""
        sums = [sha256(path) for path in files]
        digest = combined(sums, self.corpus.digest(), sha256(self.model), self.options.shard_lines)

        def make(folder: Path) -> Dict[str, Any]:
            count = self.read = 0
            with ExitStack() as stack:
                for count, pieces in enumerate(self.pieces(files), 1):
                    if (count - 1) % self.options.shard_lines == 0:
                        stack.close()
                        path = folder / f"{(count - 1) // self.options.shard_lines:05}"
                        shard = stack.enter_context(open(path, "w", encoding="utf-8"))
                    shard.write(f"{pieces}\n")
            if not count:
                raise UserError("no monolingual text that can be used")
            return {"lines": count, "left_out": self.read - count}

        return run_step(self.out / "mono", digest, make)

    def pieces(self, files: List[Path]) -> Iterator[str]:
        """Lines of *files* in subwords, those of fitting length.

        Raises:
            UserError: for a file that is no text, or rather of the source language.
        """
        corpus = replace(self.corpus, languages=(self.target,), clean=None)
        for path in files:
            checked = False
            with closing(Lines(path)) as lines, progress(f"mono: {path.name}") as show:
                single = batches(map(self.counted, read_text(lines)))
                treat = partial(text.Treatment, corpus, True, False, form=lines.markup)
                treated = in_order(treat, single, self.options.processes)
                treated = text.readable(treated, [path], corpus)
                tokens = (batch.tokens for batch in treated if batch.tokens)
                encode = partial(subwords.Encoder, self.model, self.clean)
                for batch, _ in in_order(encode, tokens, 1):
                    kept = [line for (line,) in filter(None, batch)]
                    if kept and not checked:
                        self.check_language(path, kept)
                        checked = True
                    yield from kept
                    show(lines.done())

    def counted(self, line: Line) -> Tuple[Line]:
        self.read += 1
        return (line,)

    def check_language(self, path: Path, lines: Sequence[str]) -> None:
        """Raise UserError where *lines* of *path*, in subwords, are rather of the source language,
        if they are ENOUGH: naive Bayes, by how often either side of the bitext has these subwords.
        (On 1,000 lines of talks or captions the mean log ratio is 0.3 to 4 for the right language,
        -0.1 to -4 for the other.)"""
        words = subwords.dictionary(self.model)
        logs = []
        for lang in (self.source, self.target):
            data = self.data / "bin" / f"train.{self.source}-{self.target}.{lang}.bin"
            try:
                side = np.fromfile(data, best_fitting_int_dtype(len(words)), KNOWN)
            except OSError as error:
                raise UserError(f"cannot read {data}: {error.strerror or error}") from error
            counts = np.bincount(side, minlength=len(words)) + 1.0
            logs.append(np.log(counts / counts.sum()))
        found = [words.index(piece) for line in lines for piece in line.split()]
        if len(lines) >= ENOUGH and (logs[1] - logs[0])[found].sum() < 0:
            raise UserError(
                f"{path} looks like {self.source}, but the text to translate is of {self.target}, "
                f"the target language of {self.data}"
            )

    def translate(self, mono: Dict[str, Any], model: Path) -> None:
        """Step `translations`: a file for each shard, by as many decoders as there are."""
        folder = self.out / "translations"
        digest = combined(mono["files"], sha256(model), self.options.decoding)
        stamp = folder / "digest"
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != digest:
            others = [x.name for x in folder.glob("*") if x.suffix != ".partial"]
            if others and not stamp.exists():
                raise UserError(f"{folder} was not made here: give another --output")
            if len(others) > 1:  # more than the stamp
                raise UserError(
                    f"{folder} holds translations of other text, or by another model or "
                    "--decoding: give another --output, or remove it"
                )
            discard(folder)
            folder.mkdir()
            with whole_file(stamp) as f:
                f.write(digest)
        for left in folder.glob("*.partial"):  # of a killed process: this one has the lock
            rmtree(left) if left.is_dir() else left.unlink()
        todo = [name for name in sorted(mono["files"]) if not (folder / name).exists()]
        devices: queue.Queue[str] = queue.Queue()
        for device in visible_devices(self.options.decoders):
            devices.put(device)
        done = len(mono["files"]) - len(todo)
        with progress("translate") as show, ThreadPoolExecutor(self.options.decoders) as pool:
            jobs = [pool.submit(self.translate_shard, name, model, devices) for name in todo]
            try:
                for job in jobs:
                    job.result()
                    done += 1
                    show(done / len(mono["files"]))
            finally:
                for job in jobs:
                    job.cancel()

    def translate_shard(self, name: str, model: Path, devices: "queue.Queue[str]") -> None:
        """Write translations/NAME, line by line those of mono/NAME, in subwords."""
        shard, device = self.out / "mono" / name, devices.get()
        folder = self.out / "translations" / f"{name}.partial"
        try:
            folder.mkdir()
            dictionary = self.data / "bin" / f"dict.{self.target}.txt"
            (folder / f"shard.{self.target}").symlink_to(shard)  # a name by which it is found
            run_command(
                [BIN / "fairseq-preprocess", "-s", self.target, "-t", self.source, "--only-source"]
                + ["--srcdict", dictionary, "--workers", "1", "--destdir", folder]
                + ["--testpref", folder / "shard"]
            )
            copyfile(dictionary, folder / f"dict.{self.source}.txt")
            output = folder / "generate.txt"
            self.generate(folder, model, output, device)
            found = outputs.split_blocks(outputs.read_lines(str(output)), str(output))["H"]
            with open(shard, encoding="utf-8") as f:
                count = sum(1 for _ in f)
            with whole_file(self.out / "translations" / name) as f:
                f.writelines(f"{found.get(i, '')}\n" for i in range(count))
            rmtree(folder)
        finally:
            devices.put(device)

    def generate(self, folder: Path, model: Path, output: Path, device: str) -> None:
        """fairseq-generate on one device."""
        command = [BIN / "fairseq-generate", folder, "--user-dir", DATA.parent / "fairseq_admin"]
        command += ["-s", self.target, "-t", self.source, "--path", model]
        command += ["--gen-subset", "test", "--required-batch-size-multiple", "1"]
        command += ["--max-len-a", str(self.clean.ratio or CLEAN.ratio), "--max-len-b", "1"]
        command += ["--max-tokens", "8000", *self.options.decoding.split()]
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": device}
        if self.options.cpu:
            command, env = [*command, "--cpu"], {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(output, "w", encoding="utf-8") as f:
            run_command(command, f, env)

    def filter(self, mono: Dict[str, Any]) -> Dict[str, Any]:
        """Step `pairs`: translation and original, without those that cannot be right."""
        translations = self.out / "translations"
        sums = {name: sha256(translations / name) for name in sorted(mono["files"])}

        def make(folder: Path) -> Dict[str, Any]:
            left_out = 0
            for name in sums:
                files = (translations / name, self.out / "mono" / name)
                lines = [file.read_bytes().count(b"\n") for file in files]
                if lines[0] != lines[1]:
                    raise UserError(
                        f"{files[0]} has {lines[0]:,} lines, not {lines[1]:,}: remove it, and run "
                        "this again"
                    )
            with Splits(folder, (self.source, self.target)) as kept:
                for name in sums:
                    seen = set()  # of this shard: the memory stays that of one
                    for pair in read_lines([translations / name, self.out / "mono" / name]):
                        if plausible(*pair, self.clean) and pair not in seen:
                            seen.add(pair)
                            kept.write("train", pair)
                        else:
                            left_out += 1
            if not kept.pairs:
                raise UserError("no back-translation could be used: is the reverse model trained?")
            return {"pairs": kept.pairs["train"], "left_out": left_out}

        digest = combined(mono["files"], sums, repr(self.clean))
        return run_step(self.out / "pairs", digest, make)

    def binarize(self, pairs: Dict[str, Any]) -> Dict[str, Any]:
        """Step `bin`: the bitext's files and the back-translations as train1."""
        bitext, languages = self.data / "bin", f"{self.source}-{self.target}"

        def make(folder: Path) -> Dict[str, Any]:
            for lang in (self.source, self.target):
                pieces = self.out / "pairs" / f"train.{lang}"
                prefix, processes = folder / f"train1.{languages}.{lang}", self.options.processes
                subwords.binarize(pieces, pairs["pairs"], self.model, prefix, processes)
            return take_over(bitext, folder)

        return run_step(self.out / "bin", combined(pairs["files"], made(bitext)["digest"]), make)

    def run(self, files: List[Path], model: Path) -> Dict[str, Any]:
        """All steps; what each made."""
        mono = self.shards(files)
        self.translate(mono, model)
        pairs = self.filter(mono)
        raw = self.data / "raw"  # to score against
        run_step(self.out / "raw", made(raw)["digest"], partial(take_over, raw))
        return {"mono": mono, "pairs": pairs, "bin": self.binarize(pairs)}


def plausible(translation: str, original: str, clean: Clean = CLEAN) -> bool:
    """Whether a pair of lines in subwords may be a translation: of fitting length, with no unknown
    word, and not a copy."""
    tokens = translation.split()
    fits = clean.keeps(len(tokens), len(original.split()))
    return fits and "<unk>" not in tokens and translation != original
