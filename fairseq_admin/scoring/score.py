"""Scores of translations by the library that owns each metric: BLEU in three forms, chrF, TER."""

import logging
import re
from collections import Counter
from importlib.metadata import version
from typing import Iterable, List, Optional

import regex
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from fairseq_admin.errors import UserError
from fairseq_admin.scoring.moses import Detokenizer, Tokenizer, language
from fairseq_admin.scoring.outputs import UNKNOWN, read_compared, read_reference

logger = logging.getLogger(__name__)

METRICS = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "tokenized_bleu": "tokenized BLEU",
    "compound_split_bleu": "compound-split BLEU",
}
OWN = {  # sacreBLEU's tokenizer of a language
    code: name
    for name, codes in (("zh", "zh zho chi cmn"), ("ja-mecab", "ja jpn"), ("ko-mecab", "ko kor"))
    for code in codes.split()
}
# without spaces between words, and without a tokenizer of their own
NO_SPACES = {"yue", "wuu", "th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bo", "bod", "dz"}
HAN = {"yue", "wuu"}  # of these
SCRIPTS = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
UNSPACED = regex.compile("".join(["[", *(rf"\p{{{script}}}" for script in SCRIPTS), "]"]))
COMPOUND = re.compile(rb"(\S)-(\S)")  # of bytes, as Perl reads them


def compound_split(text: str) -> str:
    """*text* with compounds split at their hyphens, as fairseq's scripts/compound_split_bleu.sh."""
    return COMPOUND.sub(rb"\1 ##AT##-##AT## \2", text.encode()).decode()


def cut(lines: List[str], lang: str, dashes: bool = False) -> List[str]:
    """Moses tokens of raw *lines*, not escaped; *dashes* as `tokenizer.perl -a`."""
    return unescape(map(Tokenizer(lang, dashes), lines), lang)


def unescape(lines: Iterable[str], lang: str) -> List[str]:
    """Tokens without Moses' escapes."""
    return list(map(Detokenizer(lang).unescape, lines))


def detokenize(lines: List[str], lang: str) -> List[str]:
    """Raw text of Moses-tokenized *lines*, which may be escaped."""
    return list(map(Detokenizer(lang), lines))


def cut_by_moses(lang: str) -> bool:
    """Whether Moses cuts text of the language *lang* into words."""
    return language(lang) not in (*OWN, *NO_SPACES)


def bleu_metric(lang: str, tokenize: Optional[str] = None) -> BLEU:
    """sacreBLEU's BLEU with its tokenizer *tokenize* or, without one, that of the language *lang*.
    Raises UserError where that is none of sacreBLEU's, or its packages are missing; where *lang* is
    no language code, or has no spaces and no tokenizer of its own."""
    lang = language(lang)
    if tokenize is None and lang in NO_SPACES:
        raise UserError(
            f"{lang} has no spaces between words, and sacreBLEU no tokenizer of its own for it: "
            "give --tokenize flores200, or char"
        )
    name = tokenize or OWN.get(lang, BLEU.TOKENIZER_DEFAULT)
    if name not in BLEU.TOKENIZERS:
        raise UserError(f"sacreBLEU has no tokenizer {name}: give {', '.join(BLEU.TOKENIZERS)}")
    try:
        return BLEU(tokenize=name)
    except (ImportError, RuntimeError, OSError, AssertionError) as error:
        needed = f"sacrebleu[{name[:2]}]" if name in OWN.values() else "sentencepiece"
        told = f"pip install '{needed}', or give another --tokenize"
        reason = f" ({' '.join(str(error).split())})" if isinstance(error, OSError) else ""
        raise UserError(f"sacreBLEU's tokenizer {name} cannot start{reason}: {told}") from None


def check_script(references: List[str], lang: str, tokenize: Optional[str] = None) -> None:
    """Raise UserError where most letters of the *references* are of scripts without spaces between
    words, and neither *lang* nor *tokenize* says how it is cut."""
    letters = Counter(filter(str.isalpha, "".join(references)))
    unspaced = sum(count for letter, count in letters.items() if UNSPACED.match(letter))
    if tokenize is None and language(lang) not in OWN and 2 * unspaced > letters.total():
        raise UserError(
            f"--target-lang {lang}, but the references are of a script without spaces between "
            "words: give that language's code (zh, ja), or --tokenize flores200 or char"
        )


def measure(
    texts: List[str],
    references: List[str],
    tokens: List[str],
    targets: List[str],
    bleu: Optional[BLEU] = None,
) -> dict:
    """Score and signature by metric; *tokens* and *targets* are *texts* and *references* in Moses
    tokens: where a 4-gram matches, multi-bleu.perl's BLEU is sacreBLEU's without a tokenizer.
    Without tokens there is no BLEU of them, and TER takes Asian characters for words."""
    metrics = {
        "bleu": (bleu or BLEU(), texts, references),
        "chrf": (CHRF(), texts, references),
        "ter": (TER() if tokens else TER(normalized=True, asian_support=True), texts, references),
    }
    if tokens:
        split = [[compound_split(line) for line in lines] for lines in (tokens, targets)]
        of_tokens = BLEU(tokenize="none", force=True)
        metrics["tokenized_bleu"] = of_tokens, tokens, targets
        metrics["compound_split_bleu"] = of_tokens, *split
    scores = {}
    for name, (metric, lines, against) in metrics.items():
        score = metric.corpus_score(lines, [against]).score
        scores[name] = {"score": round(score, 2), "signature": str(metric.get_signature())}
    return scores


def significance(
    texts: List[str], baseline: List[str], references: List[str], bleu: Optional[BLEU] = None
) -> dict:
    """sacreBLEU's paired bootstrap on BLEU: p value, mean and half-width of the 95 % interval."""
    systems = [("baseline", baseline), ("system", texts)]
    test = PairedTest(systems, {"bleu": bleu or BLEU()}, [references], "bs", n_samples=1000)
    signatures, results = test()
    theirs, ours = results["BLEU"]
    # sacreBLEU counts samples strictly above the difference: equal texts would be "significant"
    p_value = 1.0 if ours.score == theirs.score else round(float(ours.p_value), 4)
    told = {"metric": "bleu", "p_value": p_value, "signature": str(signatures["BLEU"])}
    for name, result in (("system", ours), ("baseline", theirs)):
        told[name] = {k: round(float(getattr(result, k)), 2) for k in ("score", "mean", "ci")}
    return told


def score_files(
    system: str,
    reference: Optional[str] = None,
    moses: bool = False,
    *,
    target_lang: str,
    tokenize: Optional[str] = None,
    baseline: Optional[str] = None,
    name: Optional[str] = None,
) -> dict:
    """The record of a system's scores; with *baseline*, whether BLEU differs by chance.

    *reference*: a file of raw text; without it the T- lines of *system*, with their <<unk>>.
    *moses*: the text of *system*, its T- lines and *baseline* are Moses-tokenized, else raw.
    *target_lang*, *tokenize*: as `bleu_metric`.

    Raises UserError for a file that cannot be read, or does not hold each sentence once; for a
    reference in subwords; and as `bleu_metric` and `check_script`.
    """
    bleu = bleu_metric(target_lang, tokenize)
    references = read_reference(reference) if reference else None
    lines, targets = read_compared(system, references, reference)
    raw = detokenize if moses else lambda lines, _: lines
    if references is None:
        references = raw(targets, target_lang)
        if any(map(UNKNOWN.search, targets)):
            logger.warning(f"{system}: no word matches a reference's <<unk>>; give --reference")
    check_script(references, target_lang, tokenize)
    texts = raw(lines, target_lang)
    distinct = len(set(texts))
    if distinct == 1 < len(set(references)):
        logger.warning(f"{system}: one translation for all sentences: the source is not seen")
    if not cut_by_moses(target_lang):
        tokens = targets = []
    elif not moses:
        tokens, targets = cut(texts, target_lang), cut(references, target_lang)
    elif targets and not (reference and any(map(UNKNOWN.search, targets))):
        tokens = lines
    else:
        tokens = unescape(lines, target_lang)
        targets = cut(references, target_lang, any(" @-@ " in line for line in lines))
    record = {
        "system": name or system,
        "reference": reference or f"T- lines of {system}",
        "sentences": len(texts),
        "distinct": distinct,  # translations
        "moses": moses,
        "target_lang": target_lang,
        "sacremoses": version("sacremoses"),
        "scores": measure(texts, references, tokens, targets, bleu),
    }
    if language(target_lang) in NO_SPACES - HAN:  # TER's words are those of Han, or between spaces
        del record["scores"]["ter"]
    if baseline:
        others, _ = read_compared(baseline, references, record["reference"])
        test = significance(texts, raw(others, target_lang), references, bleu)
        record["significance"] = {"against": baseline, **test}
    return record
