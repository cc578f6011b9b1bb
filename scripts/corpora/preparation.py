"""The steps from archives to what fairseq-train reads, one folder a step."""

import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Sequence

from tqdm import tqdm

from corpora import subwords, text
from corpora.archive import extract
from corpora.corpus import SPLITS, Corpus, Text
from corpora.fetch import fetch
from corpora.parallel import batches, in_order
from corpora.reading import read_pairs
from corpora.steps import combined, run_step, sha256
from fairseq_admin.errors import UserError

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent  # of the console commands of this environment
PACKAGE = HERE.parents[1] / "fairseq_admin"
MODULES = [HERE / "reading.py", HERE / "text.py", PACKAGE / "moses.py"]  # these decide the tokens
POSITIONS = 1023  # subwords of a sentence that fairseq's 1024 positions hold beside its end
PROGRESS_S = 10.0  # seconds between two lines of progress where stderr is no terminal


@contextmanager
def progress(what: str) -> Iterator[Any]:
    """A function that takes the share done, 0 to 1, and shows it with the remaining time."""
    seconds = 0.5 if sys.stderr.isatty() else PROGRESS_S
    form = "{desc} {percentage:3.0f} % [{elapsed}, {remaining} left]"
    with tqdm(total=1.0, desc=what, mininterval=seconds, delay=seconds, bar_format=form) as bar:
        yield lambda share: bar.update(share - bar.n)


class Splits:
    """Text files SPLIT.LANG of a folder, written pair by pair, and how many pairs each has."""

    def __init__(self, folder: Path, languages: Sequence[str]) -> None:
        self.folder, self.languages = folder, languages
        self.files: Dict[str, List[Any]] = {}
        self.pairs: Counter = Counter()
        self.stack = ExitStack()

    def write(self, split: str, pair: Sequence[str]) -> None:
        """Append *pair* to *split*."""
        if split not in self.files:
            paths = [self.folder / f"{split}.{lang}" for lang in self.languages]
            self.files[split] = [self.stack.enter_context(write_text(path)) for path in paths]
        for file, line in zip(self.files[split], pair):
            file.write(f"{line}\n")
        self.pairs[split] += 1

    def __enter__(self) -> "Splits":
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.close()


class Preparation:
    """One corpus on its way into the folder *out*, with so many *processes*."""

    def __init__(self, corpus: Corpus, out: Path, processes: int) -> None:
        self.corpus, self.out, self.processes = corpus, out, processes
        self.versions = {name: version(name) for name in ("sacremoses", "sentencepiece")}

    def fetch(self, mirror: Optional[str] = None) -> Dict[str, str]:
        """Download and unpack what the bitext lies in; checksums of archives, and of own files."""
        members: Dict[str, List[str]] = {}
        sums = {}
        for t in (t for texts in self.corpus.sides().values() for t in texts):
            if t.archive is None:
                for name in t.files:
                    sums[name] = sha256(readable(Path(name)))
            else:
                members.setdefault(t.archive, []).extend(t.files)
        for name, files in members.items():
            path = fetch(self.corpus.sources[name], self.out / "downloads", mirror)
            sums[name] = sha256(path)
            extract(path, files, self.out / "extracted" / name)
        return sums

    def paths(self, t: Text) -> List[Path]:
        """The two files of a text, unpacked."""
        folder = Path() if t.archive is None else self.out / "extracted" / t.archive
        return [folder / name for name in t.files]

    def tokenize(self, sums: Dict[str, str]) -> Dict[str, Any]:
        """Step `tok`: clean Moses tokens of every split."""
        code = [sha256(path) for path in MODULES]
        digest = combined(self.corpus.digest(), sorted(sums.values()), code, self.versions)

        def make(folder: Path) -> Dict[str, Any]:
            languages, left_out = self.corpus.languages, {}
            raw_names = [f"raw.{lang}" for lang in languages]
            with Splits(folder, languages) as tokens, Splits(folder, raw_names) as raw:
                for split in SPLITS:
                    left_out[split] = Counter()
                    for t in getattr(self.corpus, split):
                        left_out[split] += self.treat(t, split, tokens, raw)
            return {"pairs": tokens.pairs, "left_out": {s: c for s, c in left_out.items() if c}}

        return run_step(self.out / "tok", digest, make)

    def treat(self, t: Text, split: str, tokens: Splits, raw: Splits) -> Counter:
        """Write the pairs of a text to *tokens*, and raw text of those held out to *raw*; of
        training text every so-many-th pair is held out for validation. Pairs left out by reason."""
        training, every = split == "train", self.corpus.valid_every
        left_out: Counter = Counter()
        paths = self.paths(t)
        with progress(f"tok: {split}, {paths[0].name}") as show:
            pairs = batches(read_pairs(*paths, t.format, show))
            arguments = (self.corpus, training, not training or bool(every))
            for batch in in_order(text.treat, pairs, self.processes, text.prepare, arguments):
                if batch.unreadable and not training:
                    side, number = batch.unreadable
                    raise UserError(f"{paths[side]}, line {number}: no UTF-8")
                left_out += batch.dropped
                for i, pair in enumerate(batch.tokens):
                    held_out = training and every and (sum(tokens.pairs.values()) + 1) % every == 0
                    name = "valid" if held_out else split
                    tokens.write(name, pair)
                    if name != "train":
                        raw.write(name, batch.raw[i])
        return left_out

    def keep_raw(self, tok: Dict[str, Any]) -> Dict[str, Any]:
        """Step `raw`: the untouched text of the held-out splits, to translate and score against."""

        def make(folder: Path) -> Dict[str, Any]:
            for name in (n for n in tok["files"] if ".raw." in n):
                (folder / name.replace(".raw.", ".")).write_bytes(
                    (self.out / "tok" / name).read_bytes()
                )
            return {}

        return run_step(self.out / "raw", combined(tok), make)

    def train_subwords(self, tok: Dict[str, Any]) -> Dict[str, Any]:
        """Step `spm`: joint BPE of the training tokens."""
        types, coverage = self.corpus.subwords, self.corpus.character_coverage
        paths = [self.out / "tok" / f"train.{lang}" for lang in self.corpus.languages]
        settings = [types, coverage, subwords.SAMPLE, self.versions["sentencepiece"]]
        digest = combined([tok["files"][path.name] for path in paths], settings)

        def make(folder: Path) -> Dict[str, Any]:
            lines = tok["pairs"]["train"]
            subwords.train(paths, lines, types, coverage, folder / subwords.MODEL)
            return {"subwords": types}

        return run_step(self.out / "spm", digest, make)

    def encode(self, tok: Dict[str, Any], spm: Dict[str, Any]) -> Dict[str, Any]:
        """Step `bpe`: every split in pieces; of training text the pairs of fitting length."""
        clean = self.corpus.clean_subwords
        digest = combined(tok["files"], spm["files"], clean and repr(clean))

        def make(folder: Path) -> Dict[str, Any]:
            with Splits(folder, self.corpus.languages) as pieces:
                left_out = {
                    s: self.encode_split(s, total, pieces) for s, total in tok["pairs"].items()
                }
            return {"pairs": pieces.pairs, "left_out": {s: n for s, n in left_out.items() if n}}

        return run_step(self.out / "bpe", digest, make)

    def encode_split(self, split: str, total: int, pieces: Splits) -> int:
        """Write *split* to *pieces*; pairs left out."""
        paths = [self.out / "tok" / f"{split}.{lang}" for lang in self.corpus.languages]
        held_out_file = split == "test" or (split == "valid" and self.corpus.valid)
        clean = None if held_out_file else self.corpus.clean_subwords
        arguments = (str(self.out / "spm" / subwords.MODEL), clean)
        done = left_out = 0
        with ExitStack() as stack:
            show = stack.enter_context(progress(f"bpe: {split}"))
            files = [stack.enter_context(open(p, encoding="utf-8", newline="\n")) for p in paths]
            pairs = ((a.rstrip("\n"), b.rstrip("\n")) for a, b in zip(*files))
            encode, prepare = subwords.encode, subwords.prepare
            for batch, longest in in_order(
                encode, batches(pairs), self.processes, prepare, arguments
            ):
                if held_out_file and longest > POSITIONS:
                    raise UserError(
                        f"{paths[0].name} or {paths[1].name}, lines {done + 1} to "
                        f"{done + len(batch)}: a sentence of {longest} subwords, but fairseq takes "
                        f"{POSITIONS}: shorten it or take the pair out"
                    )
                done += len(batch)
                for pair in batch:
                    if pair is None:
                        left_out += 1
                    else:
                        pieces.write(split, pair)
                show(done / total)
        return left_out

    def binarize(self, bpe: Dict[str, Any]) -> Dict[str, Any]:
        """Step `bin`: what fairseq-preprocess makes of the pieces; the sides share a dictionary."""
        source, target = self.corpus.languages

        def make(folder: Path) -> Dict[str, Any]:
            prefixes = [
                (f"--{s}pref", str(self.out / "bpe" / s)) for s in SPLITS if s in bpe["pairs"]
            ]
            command = ["-s", source, "-t", target, "--joined-dictionary", "--destdir", str(folder)]
            command += [word for prefix in prefixes for word in prefix]
            preprocess([*command, "--workers", str(self.processes)])
            (folder / "preprocess.log").unlink()  # it names this machine's folders
            return {}

        return run_step(self.out / "bin", combined(bpe["files"]), make)

    def run(self, mirror: Optional[str] = None) -> Dict[str, Any]:
        """All steps; what each made."""
        sums = self.fetch(mirror)
        tok = self.tokenize(sums)
        raw = self.keep_raw(tok)
        spm = self.train_subwords(tok)
        bpe = self.encode(tok, spm)
        return {"tok": tok, "raw": raw, "spm": spm, "bpe": bpe, "bin": self.binarize(bpe)}


def write_text(path: Path) -> IO[str]:
    """A text file to write, whose lines end as they do everywhere."""
    return open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115  closed by its caller


def readable(path: Path) -> Path:
    """*path*, when it is a file."""
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    return path


def preprocess(arguments: Sequence[str]) -> None:
    """fairseq-preprocess; UserError with its last words when it fails."""
    command = [str(BIN / "fairseq-preprocess"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        tail = done.stdout.strip().splitlines()[-1:] or [""]
        raise UserError(f"fairseq-preprocess failed with {done.returncode}: {tail[0]}")
