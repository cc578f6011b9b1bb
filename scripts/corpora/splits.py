"""Aligned text files of the splits of a corpus."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple


class Splits(ExitStack):
    """Text files SPLIT.LANG of a folder, written pair by pair, and how many pairs each has."""

    def __init__(self, folder: Path, languages: Sequence[str]) -> None:
        super().__init__()
        self.folder, self.languages = folder, languages
        self.files: Dict[str, List[Any]] = {}
        self.pairs: Counter = Counter()

    def write(self, split: str, pair: Sequence[str]) -> None:
        """Append *pair* to *split*."""
        if split not in self.files:
            paths = [self.folder / f"{split}.{lang}" for lang in self.languages]
            self.files[split] = [  # whose lines end as they do everywhere
                self.enter_context(open(path, "w", encoding="utf-8", newline="\n"))  # noqa: SIM115
                for path in paths
            ]
        for file, line in zip(self.files[split], pair):
            file.write(f"{line}\n")
        self.pairs[split] += 1


def read_lines(paths: Sequence[Path]) -> Iterator[Tuple[str, ...]]:
    """Line by line of aligned files."""
    with ExitStack() as stack:
        files = [stack.enter_context(open(p, encoding="utf-8", newline="\n")) for p in paths]
        for lines in zip(*files):
            yield tuple(line.rstrip("\n") for line in lines)
