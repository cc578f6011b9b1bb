"""What a corpus is made of and how its text is treated: data/CORPUS/corpus.yaml."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from corpora.fetch import Source
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.text import KINDS

DATA = Path(__file__).resolve().parents[2] / "data"
SPLITS = ("train", "valid", "test")
TREATMENT = ("languages", "valid_every", "normalize", "aggressive", "lowercase", "moses")
TREATMENT += ("tokenized", "clean")
MISTAKES = (ValueError, TypeError, KeyError, AttributeError)  # of what an entry is
NUMBERS = ("valid_every", "subwords", "character_coverage", "unreadable", "tolerance")


@dataclass(frozen=True)
class Clean:
    """Pairs that stay: tokens of each side within `length`, sides no more than `ratio` apart
    (None: any), as Moses' clean-corpus-n.perl counts them."""

    length: Tuple[int, int]
    ratio: Optional[float] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", tuple(self.length))
        low, high = self.length
        if not (1 <= low <= high and (self.ratio is None or self.ratio >= 1)):
            told = "clean takes a length [1 or more, more] and a ratio of 1 or more"
            raise ValueError(f"{told}: {vars(self)}")

    def keeps(self, source: int, target: int) -> bool:
        """Whether a pair of so many tokens stays."""
        low, high = self.length
        if not (low <= source <= high and low <= target <= high):
            return False
        return self.ratio is None or max(source, target) / min(source, target) <= self.ratio


@dataclass(frozen=True)
class Text:
    """Two aligned files (source, target), in an archive or by themselves."""

    files: Tuple[str, str]
    archive: Optional[str] = None  # a name of `sources`; None: so are the files, or paths, or made
    format: str = "plain"

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(self.files))
        if len(self.files) != 2 or self.format not in KINDS:
            told = f"a text has two files and a format of {', '.join(KINDS)}"
            raise ValueError(f"{told}: {vars(self)}")


@dataclass(frozen=True)
class Corpus:
    """A corpus, its sources and the treatment of its text."""

    name: str
    languages: Tuple[str, str]
    sources: Dict[str, Source] = field(default_factory=dict)
    train: Tuple[Text, ...] = ()
    valid: Tuple[Text, ...] = ()
    test: Tuple[Text, ...] = ()
    valid_every: Optional[int] = None  # of so many training pairs one is for validation
    generator: Optional[str] = None  # a script beside corpus.yaml that writes the texts
    monolingual: Tuple[str, ...] = ()  # names of `sources`, of the target language
    normalize: bool = False  # punctuation, and non-printing characters removed
    aggressive: bool = False  # hyphens between letters are tokens: tokenizer.perl -a
    lowercase: bool = False
    moses: bool = True  # cut into Moses' tokens first; else into subwords as it is
    tokenized: bool = False  # the text is Moses-tokenized already
    clean: Optional[Clean] = None  # counts Moses' tokens
    clean_subwords: Optional[Clean] = None  # counts subwords
    unreadable: float = 0.01  # share of a training text's lines that may be no UTF-8
    subwords: int = 32000  # types, both languages together
    character_coverage: float = 1.0  # rarer characters become <unk>
    symbols: Tuple[str, ...] = ()  # subwords that no other holds
    lines: Dict[str, int] = field(default_factory=dict)  # published pairs a split
    tolerance: float = 0.0  # relative, of `lines`

    def __post_init__(self) -> None:
        if self.tokenized:  # too late to normalize: tokens stay as they are
            object.__setattr__(self, "normalize", False)

    def sides(self) -> Dict[str, Tuple[Text, ...]]:
        """The texts of each split."""
        return {split: getattr(self, split) for split in SPLITS}

    def with_texts(
        self, texts: Dict[str, Tuple[Text, ...]], languages: Tuple[str, str]
    ) -> "Corpus":
        """The same treatment of other text, whose size nobody has published."""
        every = None if texts.get("valid") else self.valid_every
        bare = {"sources": {}, "generator": None, "monolingual": (), "lines": {}}
        texts = {split: texts.get(split, ()) for split in SPLITS}
        return replace(self, languages=languages, valid_every=every, **texts, **bare)

    def digest(self) -> str:
        """Hash of all that decides which tokens become of a text."""
        treatment = {name: value for name, value in asdict(self).items() if name in TREATMENT}
        return hashlib.sha256(json.dumps(treatment, sort_keys=True).encode()).hexdigest()

    def check_lines(self, pairs: Dict[str, int]) -> None:
        """Raise UserError where a split has not as many pairs as were published."""
        for split, expected in self.lines.items():
            found, tolerance = pairs.get(split, 0), self.tolerance if split != "test" else 0
            if abs(found - expected) > tolerance * expected:
                raise UserError(
                    f"{split} has {found:,} pairs, {expected:,} are published: the source has "
                    f"changed; if that is right, change `lines` in data/{self.name}/corpus.yaml"
                )


def check(corpus: Corpus) -> None:
    """Raise ValueError for what no corpus can be."""
    archives = {text.archive for texts in corpus.sides().values() for text in texts}
    unknown = (archives | set(corpus.monolingual)) - {None, *corpus.sources}
    if unknown:
        raise ValueError(f"no source is called {', '.join(sorted(unknown))}")
    if len(corpus.languages) != 2 or not all(isinstance(lang, str) for lang in corpus.languages):
        raise ValueError(f"two languages, not {corpus.languages}")  # no: YAML's False
    if set(corpus.lines) - set(SPLITS):
        raise ValueError(f"lines are of {', '.join(SPLITS)}, not {', '.join(corpus.lines)}")
    numbers = {name: getattr(corpus, name) for name in NUMBERS}
    for name, number in {**numbers, **corpus.lines}.items():
        if number is not None and (isinstance(number, (bool, str)) or not number >= 0):
            raise ValueError(f"{name}: {number!r} is no number of 0 or more")


def corpus_of(entries: Dict[str, Any]) -> Corpus:
    """The corpus of what corpus.yaml has, or a manifest.json, which does not name its texts."""
    return Corpus(
        **{
            **entries,
            "languages": tuple(entries["languages"]),
            "sources": {name: Source(**s) for name, s in entries.get("sources", {}).items()},
            **{split: tuple(Text(**t) for t in entries.get(split, ())) for split in SPLITS},
            **{
                key: None if entries.get(key) is None else Clean(**entries[key])
                for key in ("clean", "clean_subwords")
            },
            **{key: tuple(entries.get(key, ())) for key in ("monolingual", "symbols")},
        }
    )


def load_corpus(name: str, data: Path = DATA) -> Corpus:
    """The corpus that `data/NAME/corpus.yaml` describes.

    Raises:
        UserError: where there is none, or it is not as it should be.
    """
    path = data / name / "corpus.yaml"
    if not path.is_file():
        known = ", ".join(known_corpora(data))
        raise UserError(f"no corpus {name}: there are {known}; your own text goes by --train")
    try:
        corpus = corpus_of({"name": name, **OmegaConf.to_container(OmegaConf.load(path))})
        check(corpus)
    except (OmegaConfBaseException, YAMLError, OSError, *MISTAKES) as error:
        raise UserError(f"{path} is not as it should be: {one_line(error)}") from None
    return corpus


def known_corpora(data: Path = DATA) -> List[str]:
    """Names of the corpora that can be downloaded or generated."""
    paths = sorted(data.glob("*/corpus.yaml"))
    return [path.parent.name for path in paths if path.parent.name != "own"]
