"""Files of text and JSON as they are read; what one is, told by its bytes: many a file that is no
text reads as one."""

import gzip
import json
import math
import re
import zlib
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, Union

from fairseq_admin.errors import UserError

HEAD = 1 << 16  # bytes that tell what a file is
GZIP = b"\x1f\x8b"
KINDS = {  # of text, as `markup` names them
    "plain": "plain text",
    "talks": "IWSLT's train.tags markup",
    "segments": "XML or SGML",
}
MARK = b"\xef\xbb\xbf"  # UTF-8's, which begins files of some programs
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, UTF-32's begin alike

# IWSLT's train.tags files, some of which begin with <doc> too; NIST's XML and SGML, with their text
# in <seg> elements
TALKS = re.compile(rb"^\s*<(url|talkid|keywords)>.*</\1>\s*$", re.MULTILINE)
SEGMENTS = re.compile(rb"\s*<(?:\?xml|!doctype|mteval|srcset|refset|tstset|doc|seg)\b", re.I)


def read_head(path: Union[str, PathLike]) -> bytes:
    """The first bytes of the file *path*, unzipped if it is gzipped, none where it is damaged;
    UserError where it cannot be read."""
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(len(GZIP)) == GZIP
            raw.seek(0)
            file = gzip.GzipFile(fileobj=raw) if zipped else raw
            with suppress(EOFError, zlib.error, gzip.BadGzipFile):
                return file.read(HEAD)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return b""


def markup(head: bytes) -> str:
    """Which markup a file that begins with *head* has: `talks` (IWSLT's train.tags), `segments`
    (NIST's XML or SGML), or `plain` for none."""
    head = head.removeprefix(MARK)
    if TALKS.search(head) and b"<seg" not in head.lower():
        return "talks"
    return "segments" if SEGMENTS.match(head) else "plain"


def check_encoding(path: Union[str, PathLike], head: bytes) -> None:
    """Raise UserError where the file *path*, which begins with *head*, cannot be UTF-8 text whose
    lines end in newlines."""
    if head.startswith(GZIP):
        raise UserError(f"{path} is gzipped: unpack it, gunzip {path}")
    if head.startswith(UTF_16) or b"\0" in head:
        raise UserError(
            f"{path} is UTF-16 or no text (it holds NUL bytes or a UTF-16 mark): convert it, for "
            "example by iconv -f UTF-16 -t UTF-8"
        )
    text = head.rstrip(b"\r\n")  # a single line may end in CR
    if text.count(b"\r") - text.count(b"\r\n") > head.count(b"\n"):
        raise UserError(f"{path} ends its lines with CR alone: convert it, tr '\\r' '\\n'")


def read_bytes(path: Union[str, PathLike]) -> bytes:
    """All of the file *path*; UserError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_json(path: Union[str, PathLike]) -> Any:
    """What the JSON file *path* holds; UserError where it cannot be read, or holds what no JSON
    has: NaN, infinity, half a character."""
    data = read_bytes(path)
    try:
        found = json.loads(data.decode("utf-8-sig"), parse_constant=number, parse_float=number)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return found


def number(text: str) -> float:
    """The finite number that *text* is; ValueError where it is none."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def printable(text: str) -> str:
    """*text* with what UTF-8 cannot hold, bytes of a file's name for example, as backslashes."""
    return text.encode("utf-8", "backslashreplace").decode()
