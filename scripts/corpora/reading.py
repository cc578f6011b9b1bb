"""Aligned pairs of raw lines out of the files of a corpus, as bytes, one pair at a time."""

import gzip
import re
import zlib
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import IO, Iterator, Tuple

from fairseq_admin.errors import UserError
from fairseq_admin.text import GZIP, KINDS, MARK, check_encoding, markup, read_head

Line = Tuple[int, bytes]  # number in its file, from 1; text without its end

# IWSLT's train.tags files: lines that are no text, then tags around lines that are.
MARKUP = re.compile(
    rb"\s*<(?:(url|keywords|speaker|reviewer|translator)\b.*</\1>\s*$|/?(?:doc|transcript)\b)"
)
TALK = re.compile(rb"\s*<talkid>\s*(.*?)\s*</talkid>")
TAGS = re.compile(rb"</?(?:title|description)>")
SEGMENT = re.compile(rb"\s*<seg\s+id\s*=\s*\"?([^\">]*)\"?\s*>\s*(.*?)\s*</seg>\s*", re.IGNORECASE)


class Lines:
    """Lines of a file, gzipped or not, that can say how far it has been read, and which `markup`
    it has. Raises UserError for a file that cannot be read, and for one that is no UTF-8 text."""

    segment = b""  # id of the <seg> read last

    def __init__(self, path: Path) -> None:
        head = read_head(path)
        check_encoding(path, head)
        self.markup = markup(head)
        try:
            self.path, self.size = path, path.stat().st_size
            self.raw = open(path, "rb")  # noqa: SIM115  see close
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        zipped = self.raw.read(len(GZIP)) == GZIP
        self.raw.seek(0)
        self.file: IO[bytes] = gzip.GzipFile(fileobj=self.raw) if zipped else self.raw

    def __iter__(self) -> Iterator[Line]:
        number = 0
        try:
            for number, line in enumerate(self.file, 1):
                if number == 1:
                    line = line.removeprefix(MARK)
                yield number, line.rstrip(b"\r\n")
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{self.path} is damaged after line {number}: {error}") from error

    def done(self) -> float:
        """Share of the file that has been read, 0 to 1."""
        return self.raw.tell() / self.size if self.size else 1.0

    def close(self) -> None:
        self.file.close()
        self.raw.close()


def talks(lines: Lines) -> Iterator[Line]:
    """The text of IWSLT's train.tags files, titles and descriptions among it as in fairseq's
    prepare-iwslt14.sh; where a talk begins stands its `<talkid>` line, to be compared."""
    for number, line in lines:
        if TALK.match(line):
            yield number, line
        elif not MARKUP.match(line):
            yield number, TAGS.sub(b"", line).strip()


def segments(lines: Lines) -> Iterator[Line]:
    """The text of `<seg>` elements, a line each, of NIST's XML and SGML files."""
    for number, line in lines:
        match, count = SEGMENT.match(line), line.lower().count(b"<seg")
        if match and count == 1:
            lines.segment = match.group(1)
            yield number, match.group(2)
        elif count:
            raise UserError(f"{lines.path}, line {number}: not one whole <seg> element a line")


FORMATS = {"plain": iter, "talks": talks, "segments": segments}


def read_text(lines: Lines) -> Iterator[Line]:
    """The text of one file, by the markup that it has."""
    return (line for line in FORMATS[lines.markup](lines) if not TALK.match(line[1]))


def read_pairs(source: Path, target: Path, form: str, watch=None) -> Iterator[Tuple[Line, Line]]:
    """Pairs of lines of two aligned files.

    Args:
        form: a name of FORMATS.
        watch: called with the share of the files read so far, now and then.

    Raises:
        UserError: where the files are not aligned, at which line, have another form, or cannot be
            read.
    """
    with ExitStack() as stack:
        sides = [Lines(path) for path in (source, target)]
        for side in sides:
            stack.callback(side.close)
        kinds = [KINDS[side.markup] for side in sides]
        if kinds[0] != kinds[1]:
            raise UserError(f"sides not alike: {source} is {kinds[0]}, {target} {kinds[1]}")
        if kinds[0] != KINDS[form]:
            raise UserError(
                f"{source} and {target} are {kinds[0]}, not {KINDS[form]}: mend the `format` of "
                "this text in corpus.yaml"
            )
        within, pairs = " before the first talk" if form == "talks" else "", 0
        for pairs, pair in enumerate(zip_longest(*map(FORMATS[form], sides)), 1):
            if None in pair:
                longer, shorter = (source, target) if pair[1] is None else (target, source)
                number = (pair[0] or pair[1])[0]
                raise UserError(
                    f"sides not aligned{within}: {shorter} ends after {pairs - 1} lines of text, "
                    f"{longer} goes on at line {number}"
                )
            if sides[0].segment != sides[1].segment:
                raise UserError(
                    f"sides not aligned: line {pair[0][0]} of {source} is segment "
                    f"{sides[0].segment!r}, line {pair[1][0]} of {target} {sides[1].segment!r}"
                )
            if form == "talks":
                ids = [match and match.group(1) for match in (TALK.match(line) for _, line in pair)]
                if ids[0] != ids[1]:
                    raise UserError(
                        f"sides not aligned{within}: line {pair[0][0]} of {source} is "
                        f"{pair[0][1][:60]!r}, line {pair[1][0]} of {target} is {pair[1][1][:60]!r}"
                    )
                if ids[0] is not None:
                    within = f" in talk {ids[0].decode(errors='replace')}"
                    continue
            if watch and pairs % 1000 == 0:
                watch(sides[0].done())
            yield pair
        if not pairs:
            raise UserError(f"no text in {source} and {target}")
