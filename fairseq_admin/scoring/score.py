"""Scores of translations by the library that owns each metric: BLEU in three forms, chrF, TER."""

import logging
import re
from importlib.metadata import version
from typing import Iterable, List, Optional

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from fairseq_admin.scoring.moses import Detokenizer, Tokenizer
from fairseq_admin.scoring.outputs import UNKNOWN, read_compared, read_lines, read_output

logger = logging.getLogger(__name__)

METRICS = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "tokenized_bleu": "tokenized BLEU",
    "compound_split_bleu": "compound-split BLEU",
}
COMPOUND = re.compile(rb"(\S)-(\S)")  # of bytes, as Perl reads them


def compound_split(text: str) -> str:
    """*text* with compounds split at their hyphens, as fairseq's scripts/compound_split_bleu.sh."""
    return COMPOUND.sub(rb"\1 ##AT##-##AT## \2", text.encode()).decode()


def tokenize(lines: List[str], lang: str, dashes: bool = False) -> List[str]:
    """Moses tokens of raw *lines*, not escaped; *dashes* as `tokenizer.perl -a`."""
    return unescape(map(Tokenizer(lang, dashes), lines), lang)


def unescape(lines: Iterable[str], lang: str) -> List[str]:
    """Tokens without Moses' escapes."""
    return list(map(Detokenizer(lang).unescape, lines))


def detokenize(lines: List[str], lang: str) -> List[str]:
    """Raw text of Moses-tokenized *lines*, which may be escaped."""
    return list(map(Detokenizer(lang), lines))


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
    lines, targets = read_compared(system, references, reference)
    raw = detokenize if moses else lambda lines, _: lines
    if references is None:
        references = raw(targets, target_lang)
        if any(map(UNKNOWN.search, targets)):
            logger.warning(f"{system}: no word matches a reference's <<unk>>; give --reference")
    texts = raw(lines, target_lang)
    if not moses:
        tokens, targets = tokenize(texts, target_lang), tokenize(references, target_lang)
    elif targets:
        tokens = lines
    else:
        tokens = unescape(lines, target_lang)
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
        others, _ = read_compared(baseline, references, record["reference"])
        test = significance(texts, raw(others, target_lang), references)
        record["significance"] = {"against": baseline, **test}
    return record
