"""Scores: tokenized BLEU is multi-bleu's, every sentence counts once and against its reference."""

import gzip
import logging
import math
import random
import re
import sys
from collections import Counter
from functools import partial

import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from fairseq_admin.errors import UserError
from fairseq_admin.scoring import score
from fairseq_admin.scoring.outputs import read_lines, read_output, undo_pieces
from fairseq_admin.scoring.score import compound_split, measure, significance
from fairseq_admin_cli.main import main

score_files = partial(score.score_files, target_lang="en")

REFERENCES = [
    "The well-known man didn't sing a song.",
    'He said: "It costs 5,300 dollars (or more)!"',
    "Two dogs & a cat run over the green-blue field [today].",
    "Nobody knows what $20 is, and nobody cares.",
]
HYPOTHESES = [
    "The well-known man did not sing a song.",
    'He said: "It costs 5,300 dollars (or less)!"',
    "Two dogs & a cat run over the green field [today].",
    "Nobody knows what $20 is and who cares.",
]
# as tokenizer.perl writes it, escaped, without and with -a
MOSES_REFERENCES = [
    "The well-known man didn &apos;t sing a song .",
    "He said : &quot; It costs 5,300 dollars ( or more ) ! &quot;",
    "Two dogs &amp; a cat run over the green-blue field &#91; today &#93; .",
    "Nobody knows what $ 20 is , and nobody cares .",
]
MOSES_HYPOTHESES = [
    "The well-known man did not sing a song .",
    "He said : &quot; It costs 5,300 dollars ( or less ) ! &quot;",
    "Two dogs &amp; a cat run over the green field &#91; today &#93; .",
    "Nobody knows what $ 20 is and who cares .",
]


def multi_bleu(hypotheses, references):
    """BLEU by the formula of multi-bleu.perl for one reference, without smoothing."""
    correct, total, length, reference_length = Counter(), Counter(), 0, 0
    for hypothesis, reference in zip(hypotheses, references):
        words, reference_words = hypothesis.split(), reference.split()
        length += len(words)
        reference_length += len(reference_words)
        for n in range(1, 5):
            ours, theirs = (
                Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1))
                for w in (words, reference_words)
            )
            total[n] += sum(ours.values())
            correct[n] += sum(min(times, theirs[ngram]) for ngram, times in ours.items())
    penalty = math.exp(1 - reference_length / length) if length < reference_length else 1
    return 100 * penalty * math.exp(sum(math.log(correct[n] / total[n]) for n in range(1, 5)) / 4)


def block(number, target, *texts, source="eine Zeile", decoded=True):
    """What fairseq-generate prints of a sentence."""
    lines = [f"S-{number}\t{source}"] if source is not None else []
    lines += [f"T-{number}\t{target}"] if target is not None else []
    for text in texts:
        lines.append(f"H-{number}\t-0.4567{len(text)}\t{text}")
        lines += [f"D-{number}\t-0.4567\t{text}"] if decoded else []
        lines.append(f"P-{number}\t-0.1234 -0.2345")
    return lines


def generated(hypotheses=HYPOTHESES, targets=REFERENCES):
    """Blocks of sentences 0, 1, ..."""
    return [block(i, target, text) for i, (text, target) in enumerate(zip(hypotheses, targets))]


@pytest.fixture
def written(tmp_path):
    """A function that writes lines, or lists of lines, to a file and returns its path."""

    def write(lines, name="system.txt", end="\n"):
        flat = [x for item in lines for x in ([item] if isinstance(item, str) else item)]
        path = tmp_path / name
        path.write_bytes("".join(f"{line}{end}" for line in flat).encode())
        return str(path)

    return write


def score_of(record, name):
    return record["scores"][name]["score"]


# The metrics


def test_tokenized_bleu_is_that_of_multi_bleu(written):
    system = written(generated(MOSES_HYPOTHESES, MOSES_REFERENCES))
    expected = multi_bleu(MOSES_HYPOTHESES, MOSES_REFERENCES)
    assert 30 < expected < 90
    record = score_files(system, moses=True)
    assert score_of(record, "tokenized_bleu") == round(expected, 2)
    assert "|tok:none|" in record["scores"]["tokenized_bleu"]["signature"]


def test_tokenized_bleu_is_multi_bleus_on_any_text():
    """Shorter and longer texts, repeated words, lines without four words."""
    draw = random.Random(1)
    for _ in range(10):
        references = [" ".join(draw.choices("abc", k=draw.randint(1, 20))) for _ in range(20)]
        texts = [" ".join(draw.choices("abc", k=draw.randint(1, 20))) for _ in range(20)]
        got = measure(texts, references, texts, references)["tokenized_bleu"]["score"]
        assert got == pytest.approx(multi_bleu(texts, references), abs=0.0051)


def test_detokenized_metrics_are_the_defaults_of_sacrebleu(written):
    record = score_files(written(HYPOTHESES), written(REFERENCES, "reference.txt"))
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())):
        expected = metric.corpus_score(HYPOTHESES, [REFERENCES]).score
        assert score_of(record, name) == round(expected, 2), name
        assert record["scores"][name]["signature"] == str(metric.get_signature())
    assert "|tok:13a|" in record["scores"]["bleu"]["signature"]
    assert record["sentences"] == len(HYPOTHESES)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("well-known", "well ##AT##-##AT## known"),
        # as Perl's s///g: the next match begins after "a-b", so b's second hyphen stays
        ("a-b-c", "a ##AT##-##AT## b-c"),
        ("well-known a-b-c", "well ##AT##-##AT## known a ##AT##-##AT## b-c"),
        ("E-Mail-Adresse", "E ##AT##-##AT## Mail ##AT##-##AT## Adresse"),
        ("a - b -c d-", "a - b -c d-"),
        ("--", "--"),
        ("a--b", "a ##AT##-##AT## -b"),
        # Perl reads bytes: of a no-break space none is a space, and of ü one is left for the second
        ("a\u00a0-b", "a\u00a0 ##AT##-##AT## b"),
        ("a-ü-c", "a ##AT##-##AT## ü ##AT##-##AT## c"),
    ],
)
def test_compounds_split_as_by_perl(text, expected):
    assert compound_split(text) == expected


def test_compound_split_bleu_splits_both_sides(written):
    record = score_files(written(generated(MOSES_HYPOTHESES, MOSES_REFERENCES)), moses=True)
    split = [[compound_split(x) for x in side] for side in (MOSES_HYPOTHESES, MOSES_REFERENCES)]
    expected = round(multi_bleu(*split), 2)
    assert score_of(record, "compound_split_bleu") == expected
    assert score_of(record, "compound_split_bleu") > score_of(record, "tokenized_bleu")


# Moses tokens


def test_raw_and_moses_text_have_the_same_scores(written):
    """Detokenized for BLEU, unescaped for tokenized BLEU: nothing depends on how it came."""
    reference = written(REFERENCES, "reference.txt")
    raw = score_files(written(HYPOTHESES, "raw.txt"), reference)
    moses = score_files(written(MOSES_HYPOTHESES, "moses.txt"), reference, moses=True)
    both = score_files(
        written(generated(MOSES_HYPOTHESES, MOSES_REFERENCES), "both.txt"), reference, moses=True
    )
    own = score_files(written(generated(MOSES_HYPOTHESES, MOSES_REFERENCES), "own"), moses=True)
    assert raw["scores"] == moses["scores"] == both["scores"] == own["scores"]
    assert score_of(raw, "bleu") < 99


def test_split_dashes_of_the_system_split_the_reference(written):
    """fairseq's WMT recipe tokenizes with `tokenizer.perl -a`: well @-@ known."""
    split = [line.replace("l-k", "l @-@ k").replace("n-b", "n @-@ b") for line in MOSES_REFERENCES]
    record = score_files(written(split), written(REFERENCES, "raw.txt"), moses=True)
    assert [record["scores"][k]["score"] for k in ("bleu", "tokenized_bleu")] == [100, 100]


def test_target_language_is_that_of_moses(written):
    """L'homme is L' homme in French, L 'homme in English."""
    moses, raw = (
        written(["L' homme n' est pas là ."]),
        written(["L'homme n'est pas là."], "raw.txt"),
    )
    french, english = (score_files(moses, raw, moses=True, target_lang=x) for x in ("fr", "en"))
    assert score_of(french, "tokenized_bleu") == score_of(french, "bleu") == 100
    assert score_of(english, "tokenized_bleu") < 100
    assert score_of(english, "bleu") < 100


# Languages without spaces

CHINESE = ["我们明天早上八点在学校见。", "他昨天去北京参加了一个重要会议。"]
CHINESE_REFERENCES = ["我们明天早上八点在学校门口见。", "他昨天去北京参加了一个重要的会议。"]


@pytest.mark.parametrize("lang, words", [("th", False), ("yue", True)])
def test_without_words_there_is_no_ter(written, lang, words):
    """Of Thai a sentence would be one; of Han each character is."""
    files = written(CHINESE), written(CHINESE_REFERENCES, "reference.txt")
    record = score_files(*files, target_lang=lang, tokenize="char")
    assert ("ter" in record["scores"]) == words


@pytest.mark.parametrize("lang", ["zh", "zh_CN", "zho_Hans"])
def test_chinese_is_scored_by_its_characters(written, lang):
    """And not in words: between spaces there is one, which is right or not."""
    files = written(CHINESE), written(CHINESE_REFERENCES, "reference.txt")
    record = score_files(*files, target_lang=lang)
    expected = BLEU(tokenize="zh").corpus_score(CHINESE, [CHINESE_REFERENCES]).score
    assert score_of(record, "bleu") == round(expected, 2) > 70
    assert "|tok:zh|" in record["scores"]["bleu"]["signature"]
    assert list(record["scores"]) == ["bleu", "chrf", "ter"]
    assert score_of(record, "ter") < 30 and "asian:yes" in record["scores"]["ter"]["signature"]
    worse = written([CHINESE[0], "天"], "worse.txt")
    test = score_files(*files, target_lang=lang, baseline=worse)["significance"]
    assert test["system"]["score"] == score_of(record, "bleu") and "|tok:zh|" in test["signature"]


def test_a_tokenizer_that_is_named_is_taken(written):
    files = written(CHINESE), written(CHINESE_REFERENCES, "reference.txt")
    for lang in ("zh", "th"):
        record = score_files(*files, target_lang=lang, tokenize="char")
        assert "|tok:char|" in record["scores"]["bleu"]["signature"]
        assert score_of(record, "bleu") > 70
    assert "has no tokenizer mine: give none, zh, 13a" in refused(*files, tokenize="mine")


@pytest.mark.parametrize(
    "lang, told",
    [
        ("ja", r"pip install 'sacrebleu\[ja\]', or give another --tokenize"),
        ("ko_KR", r"pip install 'sacrebleu\[ko\]', or give another --tokenize"),
        ("th", "no spaces between words.*--tokenize flores200, or char"),
        ("target", "no language code"),
    ],
)
def test_languages_without_their_tokenizer_are_one_line(written, monkeypatch, lang, told):
    for module in ("MeCab", "mecab_ko"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("ja", "ko"):
        monkeypatch.delitem(sys.modules, f"sacrebleu.tokenizers.tokenizer_{name}_mecab", False)
    files = written(CHINESE), written(CHINESE_REFERENCES, "reference.txt")
    assert re.search(told, refused(*files, target_lang=lang))


@pytest.mark.parametrize("lang", ["cn", "jp", "lzh", "en"])
def test_text_without_spaces_is_never_scored_by_words(written, lang):
    """Whatever it is called: between spaces there is one word, and the score 0."""
    files = written(CHINESE), written(CHINESE_REFERENCES, "reference.txt")
    assert "a script without spaces between words" in refused(*files, target_lang=lang)
    named = score_files(*files, target_lang=lang, tokenize="char")
    assert score_of(named, "bleu") > 70
    mixed = [f"{line} said the man on the bench" for line in CHINESE]
    assert score_files(*[written(mixed, f"{i}.txt") for i in (1, 2)], target_lang="en")


def test_the_command_asks_for_the_language(written, capsys):
    arguments = ["score", written(CHINESE), "--reference", written(CHINESE_REFERENCES, "r.txt")]
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().err.splitlines()[-1].endswith("required: --target-lang")
    main([*arguments, "--target-lang", "zh", "--markdown"])
    head, _, row, *_, signature = capsys.readouterr().out.splitlines()
    assert head == "| system | BLEU | chrF | TER |" and row.count("|") == 5
    assert signature.startswith("- TER")
    main([*arguments, "--target-lang", "zh", "--tokenize", "char"])
    assert "|tok:char|" in capsys.readouterr().out


# What fairseq-generate prints


def test_sentences_are_sorted_by_id_and_log_lines_left_out(written):
    blocks = generated()
    random.Random(3).shuffle(blocks)
    log = ["2024-01-01 | INFO | fairseq_cli.generate | loading", *blocks]
    log += ["Generate test with beam=5: BLEU4 = 1.00, 9/9/9/9 (BP=1.000, ratio=1.0)"]
    assert read_output(written(log)) == (HYPOTHESES, REFERENCES)


@pytest.mark.parametrize("kept", ["H", "D", "HD", "TH", "TD", "SD", "HDP"])
def test_lines_that_grep_kept(written, kept):
    lines = [x for b in reversed(generated()) for x in b if x[0] in kept]
    assert read_output(written(lines))[0] == HYPOTHESES


def test_decoded_lines_win_and_old_output_has_none(written):
    lines = block(0, "Ein Satz.", "Ein Sat@@ z .")
    lines[3] = "D-0\t-0.5\tEin Satz."  # by --bpe and --tokenizer
    assert read_output(written(lines))[0] == ["Ein Satz."]
    assert read_output(written(block(0, "x", "Ein Sat@@ z .", decoded=False)))[0] == ["Ein Satz ."]


@pytest.mark.parametrize("headed", [True, False])
def test_first_of_nbest_counts(written, headed):
    source = "Quelle" if headed else None
    blocks = [
        block(i, target if headed else None, text, "second", "", source=source)
        for i, (text, target) in enumerate(zip(HYPOTHESES, REFERENCES))
    ]
    assert read_output(written(blocks))[0] == HYPOTHESES


def test_an_empty_hypothesis_counts(written):
    system = written(generated(["", *HYPOTHESES[1:]]))
    assert read_output(system)[0] == ["", *HYPOTHESES[1:]]
    assert score_files(system)["sentences"] == 4


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_only_newlines_end_lines(written, end, mark):
    odd = ["one\u2028line", "an\u0085other", "form\ffeed\x1dand\vmore\rback", ""]
    assert read_lines(written([mark + odd[0], *odd[1:]], end=end)) == odd
    assert read_output(written(generated(odd), end=end))[0] == odd
    record = score_files(written(odd, end=end), written(odd, "reference.txt", end="\n"))
    assert record["sentences"] == 4


def test_a_last_line_without_its_end(tmp_path):
    path = tmp_path / "system.txt"
    path.write_text("one\ntwo")
    assert read_lines(str(path)) == ["one", "two"]


# Pieces


def test_sentencepiece_is_undone():
    pieces = ["▁Ein ▁Sat z , ▁un d ▁4 2 .", "▁ <unk> ▁A @@ ▁B"]
    assert undo_pieces(pieces) == ["Ein Satz, und 42.", "<unk> A@@ B"]


def test_raw_text_with_the_sentencepiece_mark_stays():
    lines = ["progress: ▁ ▂ ▃", "a b", "c d"]
    assert undo_pieces(lines) == lines


def test_a_line_without_a_mark_among_pieces_is_joined_too():
    assert undo_pieces(["▁a b", "▁c", "d e"]) == ["ab", "c", "de"]


def test_subword_nmt_is_undone():
    assert undo_pieces(["Ein Sa@@ t@@ z .", "ab@@", "a@@b"]) == ["Ein Satz .", "ab", "a@@b"]


def test_raw_text_may_hold_the_sign_of_pieces(written):
    """It stands alone there."""
    lines = ["@@ -4,3 +1,4 @@ Hunk", "A li@@ ne", "the end @@"]
    expected = ["@@ -4,3 +1,4 @@ Hunk", "A line", "the end @@"]
    assert read_output(written(lines))[0] == expected
    assert read_output(written(generated(lines, lines))) == (expected, expected)


def test_pieces_of_targets_and_hypotheses_are_undone(written):
    pieces = [[f"▁{x}".replace(" ", " ▁").replace("e", "e ") for x in HYPOTHESES] for _ in "HT"]
    assert read_output(written(generated(*pieces))) == (HYPOTHESES, HYPOTHESES)


# What is refused


def refused(*arguments, **options):
    """The message of the UserError, one line."""
    with pytest.raises(UserError) as error:
        score_files(*arguments, **options)
    assert "\n" not in error.value.message
    return error.value.message


@pytest.mark.parametrize(("end", "begin"), [("@@ ", ""), ("", "\u2581")])
def test_a_reference_in_subwords(written, end, begin):
    cut = [begin + line.replace("an", f"a{end}n").replace(" ", f" {begin}") for line in REFERENCES]
    files = written(generated()), written(cut, "reference.txt")
    assert "reference.txt is cut into subwords" in refused(*files)


def test_a_reference_of_moses_tokens_warns(written, caplog):
    score_files(written(generated()), written(REFERENCES, "reference.txt"))
    assert not caplog.text
    score_files(written(generated()), written(MOSES_REFERENCES, "reference.txt"))
    assert "reference.txt looks like Moses' tokens (3 lines)" in caplog.text


def test_ids_missing_between_others_were_skipped_or_of_the_last_batch(written):
    blocks = generated(HYPOTHESES * 5, REFERENCES * 5)
    message = refused(written(blocks[:3] + blocks[5:7] + blocks[8:]))
    assert "no hypothesis for 3 ids (3, 4, 7): fairseq skipped them as longer" in message
    assert "--skip-invalid-size-inputs-valid-test" in message
    assert "--required-batch-size-multiple 1" in message  # it holds the longest sentences
    message = refused(written(blocks[15:]))
    assert "15 ids (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...): fairseq skipped them" in message
    assert "--required-batch-size-multiple" not in message  # which leaves out fewer


def test_the_end_is_missed_by_the_reference_only(written):
    system = written(generated()[:3])
    assert score_files(system)["sentences"] == 3
    message = refused(system, written(REFERENCES, "reference.txt"))
    assert "no hypothesis for 1 id (3): the reference is longer, and of another set" in message
    assert "--required-batch-size-multiple 1" in message and "skipped" not in message


def test_a_cut_off_block_is_missing(written):
    lines = [line for b in generated() for line in b]
    for cut in (3, 2):  # T-3, but no H-3; H-3, but no D-3
        message = refused(written(lines[:-cut]))
        assert "no hypothesis for 1 id (3): other lines of these are there" in message


def test_ids_beyond_the_reference(written):
    message = refused(written(generated()), written(REFERENCES[:2], "reference.txt"))
    assert "2 ids (2, 3) beyond the 2 lines" in message


def test_a_huge_id_is_told_at_once(written):
    assert "for 999999999999 ids (0, 1," in refused(written(block(999999999999, "a", "b")))


def test_ids_that_stand_there_twice(written):
    blocks = generated()
    assert "2 ids (1, 2) twice" in refused(written([*blocks, blocks[1], blocks[2]]))
    bare = [[x for x in b if x[0] == "H"] for b in blocks]
    assert "1 id (0) twice" in refused(written([*bare, bare[0]]), written(REFERENCES, "r.txt"))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_line_within_another_sentence(written, at):
    """T-, H- or D- of sentence 1 and 2 exchanged: two processes wrote to one file."""
    blocks = generated()
    blocks[1][at], blocks[2][at] = blocks[2][at], blocks[1][at]
    assert "2 ids (1, 2) within another sentence" in refused(written(blocks))


def test_a_reference_in_another_order(written):
    system = written(generated())
    message = refused(system, written(reversed(REFERENCES), "reference.txt"))
    assert "T- lines of" in message
    assert "4 ids (0, 1, 2, 3)" in message


def test_a_reference_that_differs_in_a_few_lines_warns(written, caplog):
    references = [*REFERENCES[:2], "Another line.", REFERENCES[3]]
    with caplog.at_level(logging.WARNING):
        score_files(written(generated()), written(references, "reference.txt"))
    assert "1 id (2)" in caplog.text


@pytest.mark.parametrize(
    "targets",
    [
        MOSES_REFERENCES,
        [line.lower() for line in MOSES_REFERENCES],
        [line.replace("-", " @-@ ") for line in MOSES_REFERENCES],
        [line.replace("-", " ##AT##-##AT## ") for line in MOSES_REFERENCES],
        [line.replace("man", "<<unk>>").replace("nobody", "<unk>") for line in REFERENCES],
        ["<<unk>>", *REFERENCES[1:]],
        [f"▁{line}".replace(" ", " ▁").replace("o", " o ") for line in REFERENCES],
    ],
    ids=["moses", "lower", "dashes", "at", "unk", "only unk", "pieces"],
)
def test_what_preparation_does_to_targets_is_no_difference(written, caplog, targets):
    with caplog.at_level(logging.WARNING):
        score_files(written(generated(HYPOTHESES, targets)), written(REFERENCES, "reference.txt"))
    assert not caplog.text


def test_unknown_words_do_not_hide_another_reference(written):
    targets = [f"<<unk>> {line}" for line in REFERENCES]
    reference = written(reversed(REFERENCES), "reference.txt")
    assert "T- lines of" in refused(written(generated(HYPOTHESES, targets)), reference)


def test_unknown_words_in_the_reference_warn(written, caplog):
    targets = ["A <<unk>> .", *REFERENCES[1:]]
    with caplog.at_level(logging.WARNING):
        score_files(written(generated(HYPOTHESES, targets)))
    assert "<<unk>>" in caplog.text


def test_one_translation_for_all_sentences_warns(written, caplog):
    references = written(REFERENCES, "reference.txt")
    assert score_files(written(HYPOTHESES), references)["distinct"] == len(set(HYPOTHESES))
    assert not caplog.messages
    blind = written(HYPOTHESES[:1] * len(REFERENCES), "blind.txt")
    assert score_files(blind, references)["distinct"] == 1
    assert "one translation for all sentences: the source is not seen" in caplog.text
    caplog.clear()
    same = written(REFERENCES[:1] * 2, "same.txt")
    assert score_files(same, same)["distinct"] == 1 and not caplog.messages


def test_unknown_words_of_the_targets_do_not_count_where_there_is_a_reference(written):
    reference = written(REFERENCES, "reference.txt")
    targets = [f"<<unk>> {line.partition(' ')[2]}" for line in MOSES_REFERENCES]
    generate = written(generated(MOSES_HYPOTHESES, targets), "generate.txt")
    plain = written(MOSES_HYPOTHESES, "plain.txt")
    found, expected = (score_files(x, reference, moses=True)["scores"] for x in (generate, plain))
    assert found == expected


def test_texts_of_equal_scores_do_not_differ(written):
    spaced = [line.replace(" ", "  ") for line in HYPOTHESES]
    files = written(HYPOTHESES), written(REFERENCES, "reference.txt")
    test = score_files(*files, baseline=written(spaced, "spaced.txt"))["significance"]
    assert test["p_value"] == 1


def test_the_reference_file_wins_over_targets(written):
    references = [REFERENCES[0], REFERENCES[1], HYPOTHESES[2], REFERENCES[3]]
    system, reference = written(generated()), written(references, "reference.txt")
    record = score_files(system, reference)
    expected = BLEU().corpus_score(HYPOTHESES, [references]).score
    assert score_of(record, "bleu") == round(expected, 2)
    assert record["reference"] == reference


def test_plain_files_of_other_lengths(written):
    message = refused(written(HYPOTHESES[:3]), written(REFERENCES, "reference.txt"))
    assert "3 lines" in message
    assert "reference 4" in message


def test_no_reference_at_all(written):
    assert "--reference" in refused(written(HYPOTHESES))
    bare = [[x for x in b if x[0] != "T"] for b in generated()]
    assert "--reference" in refused(written(bare))


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_empty_files(written, tmp_path, content):
    empty = tmp_path / "nothing.txt"
    empty.write_bytes(content)
    assert "is empty" in refused(str(empty), written(REFERENCES))
    assert "is empty" in refused(written(HYPOTHESES), str(empty))
    assert "every hypothesis is" in refused(written(generated([""] * 4)))
    assert "every T- line is" in refused(written(generated(targets=[""] * 4)))


def test_unreadable_files(written, tmp_path):
    reference = written(REFERENCES, "reference.txt")
    assert "No such file" in refused(str(tmp_path / "none.txt"), reference)
    assert "directory" in refused(str(tmp_path), reference)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Grüße\n".encode("latin-1"))
    assert "UTF-8" in refused(str(latin), reference)


# Two systems


def test_paired_bootstrap_tells_better_from_chance():
    draw = random.Random(5)
    references = [" ".join(draw.choices("abcdefgh", k=12)) for _ in range(60)]
    ends = (15, 24), (8, 24)  # characters kept
    near, far = ([line[: draw.randrange(*x)] + " z z" for line in references] for x in ends)
    test = significance(near, far, references)
    assert test["p_value"] < 0.01
    for side, texts in (("system", near), ("baseline", far)):
        expected = BLEU().corpus_score(texts, [references]).score
        assert test[side]["score"] == round(expected, 2)
        assert abs(test[side]["mean"] - expected) < 2
        assert test[side]["ci"] > 0
    assert "|bs:1000|seed:12345|" in test["signature"]
    assert significance(near, far, references) == test

    other = list(near)
    other[0], other[1] = f"{references[0]}", "z"  # one better, one worse
    assert significance(other, near, references)["p_value"] > 0.05


def test_the_baseline_is_read_by_the_same_rules(written):
    system = written(generated(MOSES_HYPOTHESES, MOSES_REFERENCES))
    worse = ["A line .", *MOSES_HYPOTHESES[1:]]
    baseline = written(generated(worse, MOSES_REFERENCES), "baseline.txt")
    record = score_files(system, moses=True, baseline=baseline)
    alone = score_files(baseline, moses=True)
    test = record["significance"]
    assert test["against"] == baseline
    assert test["baseline"]["score"] == score_of(alone, "bleu")
    assert test["system"]["score"] == score_of(record, "bleu") > test["baseline"]["score"]
    short = written(generated(worse, MOSES_REFERENCES)[:3], "short.txt")
    assert "1 id (3)" in refused(system, moses=True, baseline=short)
    plain = written(worse[:3], "plain.txt")
    assert "3 lines" in refused(system, moses=True, baseline=plain)
    swapped = written(generated(worse[::-1], MOSES_REFERENCES[::-1]), "swapped.txt")
    assert "T- lines of" in refused(system, moses=True, baseline=swapped)


@pytest.mark.parametrize(
    "kept", ["T-0\tone\nT-1\ttwo\n", "D-0\tone\nD-1\ttwo\n", "P-0\t-0.1 -0.2\nP-1\t-0.3\n"]
)
def test_output_without_its_hypotheses_is_no_plain_text(tmp_path, kept):
    """grep '^T-' or '^P-', or a D- line whose score was cut out."""
    (tmp_path / "system").write_text(kept)
    with pytest.raises(UserError, match="has no hypothesis with its score"):
        read_output(str(tmp_path / "system"), 2)


@pytest.mark.parametrize("line", ["D-1\tHe said", "D-1\t", "H-1\tHe said: yes\tno"])
def test_a_hypothesis_without_its_score_is_not_empty(written, line):
    kept = [x for b in generated() for x in b if x[0] == line[0]]
    kept[1] = line
    message = refused(written(kept), written(REFERENCES, "reference.txt"))
    assert f"is damaged: {line[:3]} has no score before its text" in message


def test_an_id_of_any_length_is_told(written):
    blocks = generated()
    blocks[1][0] = "S-" + "1" * 5000 + "\tx"
    assert "a S- line has an id of 5000 digits" in refused(written(blocks))


@pytest.mark.parametrize(
    "text, told",
    [
        (f"<url>http://x</url>\n<talkid>1</talkid>\n{REFERENCES[0]}\n", "train.tags"),
        ('\ufeff<?xml version="1.0"?>\n<mteval>\n<seg id="1">One</seg>\n', "XML"),
        ('<refset setid="x">\n<doc docid="1">\n<seg id="1">One</seg>\n', "XML"),
    ],
)
def test_markup_is_no_text(written, tmp_path, text, told):
    path = tmp_path / "dev.en"
    path.write_text(text, encoding="utf-8")
    for files in ((written(HYPOTHESES), str(path)), (str(path), written(REFERENCES, "r.txt"))):
        message = refused(*files)
        assert told in message and "scripts/prepare.sh reads such files" in message


@pytest.mark.parametrize(
    "data, told",
    [
        ("\n".join(REFERENCES).encode("utf-16"), "UTF-16 or no text"),
        ("\n".join(REFERENCES).encode("utf-16-be"), "UTF-16 or no text"),
        (b"a\nb\nc\x00\nd\n", "NUL"),
        (gzip.compress(b"a\nb\nc\nd\n", mtime=0), "is gzipped: unpack it"),
        (b"a\rb\rc\rd\r", "CR alone"),
    ],
)
def test_other_encodings_are_one_line(written, tmp_path, data, told):
    path = tmp_path / "dev.en"
    path.write_bytes(data)
    for files in ((written(HYPOTHESES), str(path)), (str(path), written(REFERENCES, "r.txt"))):
        assert told in refused(*files)
