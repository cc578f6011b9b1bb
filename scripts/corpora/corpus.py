"""What a corpus is made of and how its text is treated: data/CORPUS/corpus.yaml."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from corpora.fetch import Source, file_name
from corpora.languages import check_sides
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.text import KINDS

DATA = Path(__file__).resolve().parents[2] / "data"
SPLITS = ("train", "valid", "test")
TREATMENT = ("languages", "valid_every", "normalize", "aggressive", "lowercase", "moses")
TREATMENT += ("tokenized", "clean")
SHARES = ("character_coverage", "unreadable", "tolerance")
COUNTS = ("valid_every", "subwords")
WORDS = ("languages", "symbols")


class Entries:
    """Of corpus.yaml, by OmegaConf, which knows lists only."""

    def __post_init__(self) -> None:
        for name in (option.name for option in fields(self)):
            if isinstance(getattr(self, name), list):
                setattr(self, name, tuple(getattr(self, name)))


@dataclass
class Clean(Entries):
    """Pairs that stay: tokens of each side within `length`, sides no more than `ratio` apart
    (None: any), as Moses' clean-corpus-n.perl counts them."""

    length: Tuple[int, int]
    ratio: Optional[float] = None

    def __post_init__(self) -> None:
        super().__post_init__()
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


@dataclass
class Text(Entries):
    """Two aligned files (source, target), in an archive or by themselves."""

    files: Tuple[str, str]
    archive: Optional[str] = None  # a name of `sources`; None: so are the files, or paths, or made
    format: str = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.files) != 2 or self.format not in KINDS:
            told = f"a text has two files and a format of {', '.join(KINDS)}"
            raise ValueError(f"{told}: {vars(self)}")


@dataclass
class Corpus(Entries):
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
        super().__post_init__()
        if self.tokenized:  # too late to normalize: tokens stay as they are
            self.normalize = False

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
        own = replace(self, languages=languages, valid_every=every, **texts, **bare)
        check_languages(own, named=True)
        return own

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


def check_languages(corpus: Corpus, named: bool = False) -> None:
    """Raise UserError where files are of the languages of other sides by their names, which are
    *named* by languages or may be, as newstest.cz of Czech, cs."""
    for split, texts in corpus.sides().items():
        for text in texts:
            check_sides(split, text.files, corpus.languages, named)


def check(corpus: Corpus) -> None:
    """Raise ValueError, or UserError, for what no corpus can be."""
    archives = {text.archive for texts in corpus.sides().values() for text in texts}
    unknown = (archives | set(corpus.monolingual)) - {None, *corpus.sources}
    if unknown:
        raise ValueError(f"no source is called {', '.join(sorted(unknown))}")
    if len(corpus.languages) != 2:
        raise ValueError(f"two languages, not {corpus.languages}")
    check_languages(corpus)
    if set(corpus.lines) - set(SPLITS):
        raise ValueError(f"lines are of {', '.join(SPLITS)}, not {', '.join(corpus.lines)}")
    for name in SHARES:
        if not 0 <= getattr(corpus, name) <= 1:
            raise ValueError(f"{name}: {getattr(corpus, name)} is no share of 0 to 1")
    counts = {name: getattr(corpus, name) for name in COUNTS}
    for name, count in {**counts, **corpus.lines}.items():
        if count is not None and count < 1:
            raise ValueError(f"{name}: {count} is no number of 1 or more")
    urls = {file_name(source.url): source.url for source in corpus.sources.values()}
    for name, source in corpus.sources.items():
        if urls[file_name(source.url)] != source.url:
            told = f"source {name}: another source's url ends in {file_name(source.url)} too"
            raise ValueError(f"{told}, and would be the same file")


def corpus_of(entries: Dict[str, Any]) -> Corpus:
    """The corpus of what corpus.yaml has, or a manifest.json, which does not name its texts.

    Raises:
        OmegaConfBaseException, ValueError: for what no corpus has.
    """
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Corpus), entries))


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
        said = OmegaConf.load(path)
        corpus = corpus_of({"name": name, **said})
        if any(isinstance(word, bool) for key in WORDS for word in said.get(key, ())):
            raise ValueError(f"{' and '.join(WORDS)}: no, yes, on and off stand in quotes")
        check(corpus)
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not as it should be: {one_line(error)}") from None
    return corpus


def known_corpora(data: Path = DATA) -> List[str]:
    """Names of the corpora that can be downloaded or generated."""
    paths = sorted(data.glob("*/corpus.yaml"))
    return [path.parent.name for path in paths if path.parent.name != "own"]
