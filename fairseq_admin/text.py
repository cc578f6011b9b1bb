"""What a file of text is, told by its bytes: many a file that is none reads as one."""

import re
from os import PathLike
from typing import Union

from fairseq_admin.errors import UserError

HEAD = 1 << 16  # bytes that tell what a file is
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, UTF-32's begin alike

# IWSLT's train.tags files, and NIST's XML and SGML, whose text stands in <seg> elements
TALKS = re.compile(rb"^\s*<(?:url|talkid|keywords)>", re.MULTILINE)
SEGMENTS = re.compile(rb"^\s*<(?:\?xml|!doctype|mteval|srcset|refset|tstset|doc)\b", re.I)


def markup(head: bytes) -> str:
    """Which markup a file that begins with *head* has: `talks` (IWSLT's train.tags), `segments`
    (NIST's XML or SGML), or `plain` for none."""
    if SEGMENTS.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "segments"
    return "talks" if TALKS.search(head) else "plain"


def check_encoding(path: Union[str, PathLike], head: bytes) -> None:
    """Raise UserError where the file *path*, which begins with *head*, cannot be UTF-8 text whose
    lines end in newlines."""
    if head.startswith(UTF_16) or b"\0" in head:
        raise UserError(
            f"{path} is UTF-16 or no text (it holds NUL bytes or a UTF-16 mark): convert it, for "
            "example by iconv -f UTF-16 -t UTF-8"
        )
    if b"\r" in head.rstrip(b"\r\n") and b"\n" not in head:
        raise UserError(f"{path} ends its lines with CR alone: convert it, tr '\\r' '\\n'")
