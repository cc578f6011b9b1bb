"""Scores of translations by the library that owns each metric: BLEU in three forms, chrF, TER."""

import html
import logging
import re
import unicodedata
from collections import Counter
from importlib.metadata import version
from itertools import islice
from typing import Dict, Iterable, List, Optional, Tuple

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest
from sacremoses import MosesDetokenizer, MosesTokenizer

from fairseq_admin.errors import UserError

logger = logging.getLogger(__name__)

LINE = re.compile(r"([STHD])-([0-9]+)\t(.*)", re.DOTALL)  # of fairseq-generate
HYPOTHESIS = re.compile(r"[HD]-[0-9]+\t-?(?:[0-9.]+(?:e-?[0-9]+)?|inf|nan)(?:\t|$)")
UNKNOWN = re.compile(r"<?<unk>>?")  # <<unk>> in T- lines, <unk> in the others
COMPOUND = re.compile(rb"(\S)-(\S)")  # of bytes, as Perl reads them
PIECE = "\u2581"  # begins a word in the pieces of SentencePiece


def listed(ids: Iterable[int], total: int) -> str:
    """The first ten of *total* sentence ids, for a message."""
    first = ", ".join(map(str, islice(ids, 10)))
    return f"{total} id{'s' if total > 1 else ''} ({first}{', ...' if total > 10 else ''})"


def read_lines(path: str) -> List[str]:
    r"""Lines of a UTF-8 file, ended by `\n` or `\r\n` only; UserError if unreadable or empty."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as f:
            lines = f.read().split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    if not any(map(str.strip, lines)):
        raise UserError(f"{path} is empty")
    lines = lines[: len(lines) - (not lines[-1])]
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
    count = count or 1 + max(max(by_id, default=0) for by_id in texts.values())
    hypotheses = in_order(texts["D"] or texts["H"], count, path, "hypothesis")
    targets = texts["T"] and in_order(texts["T"], count, path, "T- line")
    return undo_pieces(hypotheses), undo_pieces(list(targets))


def split_blocks(lines: List[str], path: str) -> Dict[str, Dict[int, str]]:
    """Text by kind of line and id; of several hypotheses of a sentence (--nbest) the first.

    A block is a sentence's S-, T- and then H- and D- lines. Raises UserError with the ids where
    a line stands in the block of another id, or two blocks have one id.
    """
    matches = [match for match in map(LINE.fullmatch, lines) if match]
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


def in_order(texts: Dict[int, str], count: int, path: str, kind: str) -> List[str]:
    """*texts* of sentences 0 to *count* - 1; UserError if some lack or exceed, or all are empty."""
    beyond = sorted(i for i in texts if i >= count)
    if beyond:
        ids = listed(beyond, len(beyond))
        raise UserError(f"{path} has {ids} beyond the {count} lines of the reference")
    if len(texts) < count:
        ids = listed((i for i in range(count) if i not in texts), count - len(texts))
        raise UserError(
            f"{path} has no {kind} for {ids}: fairseq leaves out a last batch whose size is no "
            "multiple of 8; decode again with --required-batch-size-multiple 1"
        )
    if not any(map(str.strip, texts.values())):
        raise UserError(f"{path} is empty: every {kind} is")
    return [texts[i] for i in range(count)]


def undo_pieces(lines: List[str]) -> List[str]:
    """*lines* with pieces joined: SentencePiece's where most lines hold its U+2581, else those of
    subword-nmt; as `--remove-bpe` does (fairseq/data/data_utils.py, post_process, 0.12.3)."""
    if 2 * sum(PIECE in line for line in lines) > sum(bool(line.strip()) for line in lines):
        return [line.replace(" ", "").replace(PIECE, " ").strip() for line in lines]
    return [f"{x} ".replace("@@ ", "").rstrip() if "@@ " in f"{x} " else x for x in lines]


def compound_split(text: str) -> str:
    """*text* with compounds split at their hyphens, as fairseq's scripts/compound_split_bleu.sh."""
    return COMPOUND.sub(rb"\1 ##AT##-##AT## \2", text.encode()).decode()


def tokenize(lines: List[str], lang: str, dashes: bool = False) -> List[str]:
    """Moses tokens of raw *lines*, not escaped; *dashes* as `tokenizer.perl -a`."""
    moses = MosesTokenizer(lang)
    return [moses.tokenize(line, dashes, return_str=True, escape=False) for line in lines]


def detokenize(lines: List[str], lang: str) -> List[str]:
    """Raw text of Moses-tokenized *lines*, which may be escaped."""
    moses = MosesDetokenizer(lang)
    return [moses.detokenize(line.split()) for line in lines]


def letters(text: str) -> str:
    """The letters and digits of *text*: they outlast tokenizing, escaping and lower-casing."""
    text = unicodedata.normalize("NFKC", html.unescape(text).replace("##AT##", ""))
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


def measure(texts: List[str], references: List[str], tokens: List[str], targets: List[str]) -> dict:
    """Score and signature by metric; *tokens* and *targets* are *texts* and *references* in Moses
    tokens: where a 4-gram matches, multi-bleu.perl's BLEU is sacreBLEU's without a tokenizer."""
    split = [[compound_split(line) for line in lines] for lines in (tokens, targets)]
    metrics = {
        "bleu": (BLEU(), texts, references),
        "chrf": (CHRF(), texts, references),
        "ter": (TER(), texts, references),
        "tokenized_bleu": (BLEU(tokenize="none", force=True), tokens, targets),
        "compound_split_bleu": (BLEU(tokenize="none", force=True), *split),
    }
    scores = {}
    for name, (metric, lines, against) in metrics.items():
        score = metric.corpus_score(lines, [against]).score
        scores[name] = {"score": round(score, 2), "signature": str(metric.get_signature())}
    return scores


def significance(texts: List[str], baseline: List[str], references: List[str]) -> dict:
    """sacreBLEU's paired bootstrap on BLEU: p value, mean and half-width of the 95 % interval."""
    systems = [("baseline", baseline), ("system", texts)]
    test = PairedTest(systems, {"bleu": BLEU()}, [references], "bs", n_samples=1000)
    signatures, results = test()
    theirs, ours = results["BLEU"]
    # sacreBLEU counts samples strictly above the difference: equal texts would be "significant"
    p_value = 1.0 if texts == baseline else round(float(ours.p_value), 4)
    told = {"metric": "bleu", "p_value": p_value, "signature": str(signatures["BLEU"])}
    for name, result in (("system", ours), ("baseline", theirs)):
        told[name] = {k: round(float(getattr(result, k)), 2) for k in ("score", "mean", "ci")}
    return told


def hypotheses(path: str, moses: bool = False, target_lang: str = "en") -> List[str]:
    """Detokenized translations of a file in order of ids; UserError as `read_output`."""
    lines, _ = read_output(path)
    return detokenize(lines, target_lang) if moses else lines


def score_files(
    system: str,
    reference: Optional[str] = None,
    moses: bool = False,
    target_lang: str = "en",
    baseline: Optional[str] = None,
    name: Optional[str] = None,
) -> dict:
    """The record of a system's scores; with *baseline*, whether BLEU differs by chance.

    *moses*: the text of *system*, its T- lines and *baseline* are Moses-tokenized, else raw.
    *reference*: a file of raw text; without it the T- lines of *system*, with their <<unk>>.

    Raises:
        UserError: for a file that cannot be read, or does not hold each sentence once.
    """
    references = read_lines(reference) if reference else None
    lines, targets = read_output(system, references and len(references))
    raw = detokenize if moses else lambda lines, _: lines
    if references is None:
        if not targets:
            raise UserError(f"{system} has no T- lines to compare with: give --reference FILE")
        references = raw(targets, target_lang)
        if any(map(UNKNOWN.search, targets)):
            logger.warning(f"{system}: no word matches a reference's <<unk>>; give --reference")
    elif targets:
        check_targets(targets, references, system, reference)
    texts = raw(lines, target_lang)
    if not moses:
        tokens, targets = tokenize(texts, target_lang), tokenize(references, target_lang)
    elif targets:
        tokens = lines
    else:
        tokens = list(map(MosesDetokenizer().unescape_xml, lines))
        targets = tokenize(references, target_lang, any(" @-@ " in line for line in lines))
    record = {
        "system": name or system,
        "reference": reference or f"T- lines of {system}",
        "sentences": len(texts),
        "moses": moses,
        "target_lang": target_lang,
        "sacremoses": version("sacremoses"),
        "scores": measure(texts, references, tokens, targets),
    }
    if baseline:
        others, other_targets = read_output(baseline, len(references))
        if other_targets:
            check_targets(other_targets, references, baseline, record["reference"])
        test = significance(texts, raw(others, target_lang), references)
        record["significance"] = {"against": baseline, **test}
    return record
