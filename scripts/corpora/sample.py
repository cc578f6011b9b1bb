"""A tiny sample of a corpus in the corpus's own archives: `prepare.sh --sample`, `run.sh --smoke`.

The sentences are dates, numbers, currencies and countries as Babel's locale data and num2words have
them in every language: text enough to run each step on, in the right languages.
"""

import gzip
import io
import random
import tarfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from babel import Locale
from babel.dates import format_date
from num2words import num2words

from corpora.corpus import Corpus
from corpora.fetch import Source
from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file

PAIRS = {"train": 300, "valid": 20, "test": 20, "monolingual": 90}
SUBWORDS = 350
VALID_EVERY = 15
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF")
TALK = 50  # sentences


def sentences(languages: Sequence[str], count: int, seed: int) -> List[List[str]]:
    """*count* sentences a language, line by line of the same meaning."""
    rng = random.Random(seed)
    locales = [Locale(lang) for lang in languages]
    known = [{code for code in locale.territories if code.isalpha()} for locale in locales]
    countries = sorted(set.intersection(*known))
    sides: List[List[str]] = [[] for _ in locales]
    for _ in range(count):
        phrases: List[List[str]] = [[] for _ in locales]
        for _ in range(rng.randint(2, 4)):
            day = date(1900, 1, 1) + timedelta(rng.randrange(50000))
            number, currency = rng.randrange(1, 300), rng.choice(CURRENCIES)
            country, kind = rng.choice(countries), rng.randrange(3)
            for locale, words in zip(locales, phrases):
                if kind == 0:
                    words.append(format_date(day, "full", locale))
                elif kind == 1:
                    amount = num2words(number, lang=locale.language)
                    words.append(f"{amount} {locale.currencies[currency]}")
                else:
                    words.append(locale.territories[country])
        for side, words in zip(sides, phrases):
            line = ", ".join(words)
            side.append(f"{line[0].upper()}{line[1:]}.")
    return sides


def as_file(name: str, form: str, lines: List[str]) -> bytes:
    """The file *name* with these sentences, in one of the formats of corpora.reading."""
    if form == "segments":
        lines = [f'<seg id="{i}"> {line} </seg>' for i, line in enumerate(lines, 1)]
        lines = ["<doc>", *lines, "</doc>"]
    elif form == "talks":
        talks = [lines[i : i + TALK] for i in range(0, len(lines), TALK)]
        lines = []
        for i, talk in enumerate(talks):
            lines += [f"<url>talk {i}</url>", f"<talkid>{i}</talkid>", f"<title>{i}</title>", *talk]
    data = "".join(f"{line}\n" for line in lines).encode()
    return gzip.compress(data, mtime=0) if name.endswith(".gz") else data


def write_archive(path: Path, files: Dict[str, bytes]) -> None:
    """A tar archive, compressed unless it is called .tar, of *files* by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    with whole_file(path, "wb") as file:
        file.write(data if path.suffix == ".tar" else gzip.compress(data, mtime=0))


def write_sample(corpus: Corpus, mirror: Path) -> Corpus:
    """Write archives like those of *corpus* to the folder *mirror*; the corpus with these and with
    sizes that fit them."""
    mirror.mkdir(parents=True, exist_ok=True)
    files: Dict[Optional[str], Dict[str, bytes]] = {}
    for split, texts in corpus.sides().items():
        count = -(-PAIRS[split] // len(texts)) if texts else 0
        for i, text in enumerate(texts):
            sides = sentences(corpus.languages, count, seed=len(files) * 100 + i)
            for name, lines in zip(text.files, sides):
                files.setdefault(text.archive, {})[name] = as_file(name, text.format, lines)
    single = files.pop(None, {})  # by themselves, each a source
    for source, members in files.items():
        write_archive(mirror / Path(corpus.sources[source].url).name, members)
    for i, source in enumerate(corpus.monolingual):
        count = PAIRS["monolingual"] // len(corpus.monolingual)
        (lines,) = sentences(corpus.languages[1:], count, seed=1000 + i)
        single[source] = as_file(corpus.sources[source].url, "plain", lines)
    for source, data in single.items():
        if source not in corpus.sources:
            raise UserError(
                f"a sample is of what is fetched, {source} is a file of yours: prepare it as it is "
                "(run.sh --smoke goes on from there by --data)"
            )
        with whole_file(mirror / Path(corpus.sources[source].url).name, "wb") as file:
            file.write(data)
    return replace(
        corpus,
        sources={name: Source(source.url, None, None) for name, source in corpus.sources.items()},
        valid_every=corpus.valid_every and VALID_EVERY,
        subwords=SUBWORDS,
        character_coverage=1.0,
        lines={},
    )
