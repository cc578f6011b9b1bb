"""Translations as files hold them: what `fairseq-generate` printed, or plain text."""

import html
import logging
import re
import unicodedata
from collections import Counter
from itertools import islice
from os import PathLike
from typing import Dict, Iterable, List, Optional, Set, Tuple, Union

from fairseq_admin.errors import UserError
from fairseq_admin.text import HEAD, KINDS, check_encoding, markup, read_bytes

logger = logging.getLogger(__name__)

LINE = re.compile(r"([STHDP])-([0-9]+)\t(.*)", re.DOTALL)  # of fairseq-generate
SCORE = r"-?(?:[0-9.]+(?:e[-+]?[0-9]+)?|inf|nan)"
HYPOTHESIS = re.compile(rf"[HD]-[0-9]+\t{SCORE}(?:\t|$)")
DIGITS = 15  # of the largest id of a sentence
LEFT_OUT = 7  # most sentences of a batch that fairseq leaves out
UNKNOWN = re.compile(r"<?<unk>>?")  # <<unk>> in T- lines, <unk> in the others
CUT = re.compile(r"(?<=[^\s@])@@ ")  # after a piece of subword-nmt
PIECE = "\u2581"  # begins a word in the pieces of SentencePiece
ESCAPED = re.compile(r"&(?:apos|quot|#91|#93|#124);| @-@ ")  # in Moses' tokens
FEW = 20  # lines of which one may look like what they are not


def listed(ids: Iterable[int], total: int) -> str:
    """The first ten of *total* sentence ids, for a message."""
    first = ", ".join(map(str, islice(ids, 10)))
    return f"{total} id{'s' if total > 1 else ''} ({first}{', ...' if total > 10 else ''})"


def read_lines(path: str) -> List[str]:
    r"""Lines of a UTF-8 file, ended by `\n` or `\r\n` only; UserError if unreadable or empty, or if
    it holds its text in markup."""
    data = read_bytes(path)
    check_encoding(path, data)
    kind = markup(data[:HEAD])
    if kind != "plain":
        raise UserError(
            f"{path} is {KINDS[kind]}, not one sentence a line: scripts/prepare.sh reads such "
            "files and makes plain text of them"
        )
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    if not any(map(str.strip, lines)):
        raise UserError(f"{path} is empty")
    if not lines[-1]:
        lines.pop()
    return [line[:-1] if line.endswith("\r") else line for line in lines]


def read_output(path: str, count: Optional[int] = None) -> Tuple[List[str], List[str]]:
    """Hypotheses and T- lines, pieces joined, of what `fairseq-generate` printed or a plain file.

    D- lines are taken where there are any, else H- lines: T- lines are decoded as D- lines are
    (fairseq_cli/generate.py, 0.12.3). There may be no T- lines: an empty list. Raises UserError
    unless these are *count* sentences (None: up to the largest id), each once.
    """
    lines = read_lines(path)
    if not any(map(HYPOTHESIS.match, lines)):
        if 2 * sum(bool(LINE.match(line)) for line in lines) > len(lines):
            raise UserError(f"{path} is of fairseq-generate, but has no hypothesis with its score")
        if count not in (None, len(lines)):
            raise UserError(f"{path} has {len(lines)} lines, the reference {count}")
        return undo_pieces(lines), []
    texts = split_blocks(lines, path)
    seen = set().union(*texts.values())
    count = count or 1 + max(seen)
    hypotheses = in_order(texts["D"] or texts["H"], count, path, "hypothesis", seen)
    targets = texts["T"] and in_order(texts["T"], count, path, "T- line", seen)
    return undo_pieces(hypotheses), undo_pieces(list(targets))


def read_compared(
    path: str, references: Optional[List[str]], told: Optional[str]
) -> Tuple[List[str], List[str]]:
    """As `read_output`. Raises UserError also where there are neither *references* nor T- lines to
    compare with, and where the T- lines are no *references*, those of the file *told*."""
    lines, targets = read_output(path, references and len(references))
    if references is None and not targets:
        raise UserError(f"{path} has no T- lines to compare with: give --reference FILE")
    if references is not None and targets:
        check_targets(targets, references, path, told)
    return lines, targets


def split_blocks(lines: List[str], path: str) -> Dict[str, Dict[int, str]]:
    """Text by kind of line and id; of several hypotheses of a sentence (--nbest) the first.

    A block is a sentence's S-, T- and then H- and D- lines. Raises UserError with the ids where
    a line stands in the block of another id, or two blocks have one id, and where a hypothesis has
    lost its score.
    """
    matches = [match for match in map(LINE.fullmatch, lines) if match and match[1] != "P"]
    for kind, number, _ in (match.groups() for match in matches):
        if len(number) > DIGITS:
            raise UserError(f"{path} is damaged: a {kind}- line has an id of {len(number)} digits")
    bare = [f"{m[1]}-{m[2]}" for m in matches if m[1] in "HD" and not HYPOTHESIS.match(m[0])]
    if bare:
        raise UserError(f"{path} is damaged: {bare[0]} has no score before its text")
    headed = any(match[1] in "ST" for match in matches)  # else only H- and D- lines were kept
    texts: Dict[str, Dict[int, str]] = {kind: {} for kind in "STHD"}
    blocks: List[int] = []  # their ids
    mixed: List[int] = []
    before = ""  # kind of the line before
    for match in matches:
        kind, number, text = match[1], int(match[2]), match[3]
        if kind in "ST":
            begins = before + kind != "ST"
        else:
            begins = not blocks or (not headed and number != blocks[-1])
            text = text.partition("\t")[2]  # after the hypothesis' score
        before = kind
        if begins:
            blocks.append(number)
        elif number != blocks[-1]:
            mixed.append(number)
        texts[kind].setdefault(number, text)
    twice = sorted(number for number, times in Counter(blocks).items() if times > 1)
    for ids, where in ((sorted(set(mixed)), "within another sentence"), (twice, "twice")):
        if ids:
            told = f"{path} has {listed(ids, len(ids))} {where}"
            raise UserError(f"{told}: outputs are mixed; give that of one run only")
    return texts


def in_order(texts: Dict[int, str], count: int, path: str, kind: str, seen: Set[int]) -> List[str]:
    """*texts* of sentences 0 to *count* - 1; UserError if some lack or exceed, or all are empty.
    *seen* are all ids in *path*, which tell why some lack."""
    beyond = sorted(i for i in texts if i >= count)
    if beyond:
        ids = listed(beyond, len(beyond))
        raise UserError(f"{path} has {ids} beyond the {count} lines of the reference")
    if len(texts) < count:
        total = count - len(texts)
        ids = listed((i for i in range(count) if i not in texts), total)
        raise UserError(f"{path} has no {kind} for {ids}: {why_missing(texts, total, seen)}")
    if not any(map(str.strip, texts.values())):
        raise UserError(f"{path} is empty: every {kind} is")
    return [texts[i] for i in range(count)]


def why_missing(texts: Dict[int, str], total: int, seen: Set[int]) -> str:
    """Why *total* sentences lack in *texts*, of a file with the ids *seen*, and what to do."""
    if seen - texts.keys():
        return "other lines of these are there, the file is not whole; decode again"
    left_out = (
        "fairseq left out its last batch, whose size is no multiple of 8; decode again with "
        "--required-batch-size-multiple 1"
    )
    if len(seen) == max(seen) + 1:  # none lacks before the last
        return f"the reference is longer, and of another set, or {left_out}"
    skipped = (
        "fairseq skipped them as longer than the model's positions "
        "(--skip-invalid-size-inputs-valid-test); take them out of data and reference, or shorten "
        "them"
    )
    return skipped if total > LEFT_OUT else f"{skipped}; or {left_out}"


def undo_pieces(lines: List[str]) -> List[str]:
    """*lines* with pieces joined: SentencePiece's where most lines hold its U+2581, else those of
    subword-nmt; as `--remove-bpe` does (fairseq/data/data_utils.py, post_process, 0.12.3), but for
    an `@@` that stands alone, which ends no piece."""
    if in_sentencepiece(lines):
        return [line.replace(" ", "").replace(PIECE, " ").strip() for line in lines]
    return [CUT.sub("", f"{x} ").rstrip() if CUT.search(f"{x} ") else x for x in lines]


def in_sentencepiece(lines: List[str]) -> bool:
    """Whether most *lines* hold SentencePiece's U+2581."""
    return 2 * sum(PIECE in line for line in lines) > sum(bool(line.strip()) for line in lines)


def pieces_in(lines: List[str]) -> int:
    """How many *lines* of a text are in pieces; 0 where they are so few that raw text may hold
    their signs."""
    cut = sum("@@ " in f"{line} " for line in lines)
    if in_sentencepiece(lines):
        cut = sum(PIECE in line for line in lines)
    return cut if FEW * cut > len(lines) else 0


def read_reference(path: str) -> List[str]:
    """Lines of raw text to compare with, as `read_lines` and `check_raw`."""
    lines = read_lines(path)
    check_raw(path, lines, "scores are of raw text")
    return lines


def check_raw(path: Union[str, PathLike], lines: List[str], wanted: str) -> None:
    """Raise UserError where *lines* of *path* are in pieces; a warning, which ends with what is
    *wanted*, where they are Moses' tokens."""
    cut = pieces_in(lines)
    if cut:
        raise UserError(f"{path} is cut into subwords (as in {cut} lines): give raw text")
    tokens = sum(bool(ESCAPED.search(line)) for line in lines)
    if FEW * tokens > len(lines):
        logger.warning(f"{path} looks like Moses' tokens ({tokens} lines): {wanted}")


def letters(text: str) -> str:
    """The letters and digits of *text*: they outlast tokenizing, escaping and lower-casing."""
    text = unicodedata.normalize("NFKD", html.unescape(text).replace("##AT##", ""))
    return "".join(filter(str.isalnum, text.casefold()))


def check_targets(targets: List[str], references: List[str], path: str, reference: str) -> None:
    """UserError where more than half of the T- lines are no *references*; a warning where some."""
    other = []
    for i, (target, whole) in enumerate(zip(targets, map(letters, references))):
        parts = [letters(part) for part in UNKNOWN.split(target)]  # around words unknown
        if not (parts == [whole] or (len(parts) > 1 and all(part in whole for part in parts))):
            other.append(i)
    told = f"T- lines of {path} differ from {reference} for {listed(other, len(other))}"
    if 2 * len(other) > len(targets):
        raise UserError(f"{told}: it is in another order, or of another set")
    if other:
        logger.warning(told)
