"""Where systems differ: BLEU by length of the sentence, accuracy by frequency of the word.

Buckets, and precision, recall and F1 of the words in them, are of compare-mt (Neubig et al. 2019:
FreqWordBucketer, LengthSentenceBucketer); BLEU of a bucket is sacreBLEU's. Words and lengths are in
Moses tokens of raw text, not escaped, so that systems of any segmentation are compared; in those of
sacreBLEU's tokenizer where Moses does not cut the language into words.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from compare_mt.bucketers import FreqWordBucketer, LengthSentenceBucketer
from sacrebleu.metrics import BLEU

from fairseq_admin.analysis.labels import labelled
from fairseq_admin.scoring.outputs import read_compared, read_reference
from fairseq_admin.scoring.score import bleu_metric, check_script, cut, cut_by_moses, detokenize

REFERENCE = "reference"  # whose counts are taken without a training text


def read_systems(
    systems: Dict[str, str], reference: Optional[str], moses: bool, target_lang: str
) -> Tuple[List[str], List[List[str]]]:
    """The raw references, and the raw translations of each of the files *systems*. Arguments are as
    in `score.score_files`, but without *reference* the T- lines of the first file are taken. Raises
    UserError for a file that cannot be read, or does not hold each sentence once."""
    references = read_reference(reference) if reference else None
    texts = []
    for path in systems.values():
        lines, targets = read_compared(path, references, reference)
        raw = [detokenize(x, target_lang) if moses else x for x in (lines, targets)]
        texts.append(raw[0])
        if references is None:
            references, reference = raw[1], f"T- lines of {path}"
    return references, texts


def by_length(
    metric: BLEU, texts: List[str], references: List[str], lengths: List[int]
) -> List[Dict[str, Any]]:
    """Sentences and BLEU by bucket of *lengths*, in tokens of the references."""
    bucketer = LengthSentenceBucketer()
    buckets = [bucketer.cutoff_into_bucket(length) for length in lengths]
    found = []
    for bucket, name in enumerate(bucketer.bucket_strs):
        pairs = [pair for other, *pair in zip(buckets, texts, references) if other == bucket]
        if pairs:
            hypotheses, targets = zip(*pairs)
            bleu = round(metric.corpus_score(hypotheses, [targets]).score, 2)
            found.append({"bucket": name, "sentences": len(pairs), "bleu": bleu})
    return found


def by_frequency(
    systems: List[List[List[str]]], references: List[List[str]], counts: Dict[str, int]
) -> List[List[Dict[str, Any]]]:
    """Accuracy of each of the tokenized *systems* by bucket of a word's *counts*. A word is right
    as often in a sentence as the reference has it; buckets without its words are left out.

    Returns:
        words of the reference; F1, recall and precision from 0 to 1, precision None where the
        system wrote no word of the bucket.
    """
    bucketer = FreqWordBucketer(freq_counts=counts)
    found = []
    for statistics in bucketer.calc_statistics(references, systems)[0]:
        rows = []
        for name, (_, words, written, *measures) in zip(bucketer.bucket_strs, statistics):
            recall, precision, f1 = (round(float(x), 4) for x in measures)
            row = {"bucket": name, "words": int(words), "f1": f1, "recall": recall}
            if words:
                rows.append({**row, "precision": precision if written else None})
        found.append(rows)
    return found


def words_of(lines: List[str], lang: str, metric: BLEU) -> List[List[str]]:
    """Moses tokens of raw lines; those of the *metric* where Moses cuts no words."""
    tokens = cut(lines, lang) if cut_by_moses(lang) else map(metric.tokenizer, lines)
    return [line.split() for line in tokens]


def measure(options: argparse.Namespace) -> Dict[str, Any]:
    """The two tables of each system in JSON's types, which `plotting.plot_errors` draws; UserError
    as `read_systems` and `bleu_metric`."""
    systems = labelled(options.systems, lambda path: Path(path).stem)
    lang = options.target_lang
    metric = bleu_metric(lang, options.tokenize)
    references, texts = read_systems(systems, options.reference, options.moses, lang)
    check_script(references, lang, options.tokenize)
    train = read_reference(options.train_text) if options.train_text else None
    words = words_of(references, lang, metric)
    known = words_of(train, lang, metric) if train else words
    counts = Counter(word for line in known for word in line)
    frequencies = by_frequency([words_of(lines, lang, metric) for lines in texts], words, counts)
    lengths = list(map(len, words))
    found = []
    for label, lines, rows in zip(systems, texts, frequencies):
        scores = by_length(metric, lines, references, lengths)
        found.append({"label": label, "lengths": scores, "frequencies": rows})
    return {
        "analysis": "errors",
        "systems": found,
        "signature": str(metric.get_signature()),
        "counts_of": options.train_text or REFERENCE,
    }
