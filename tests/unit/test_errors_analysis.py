"""analysis/errors.py: buckets and accuracies against values derived by hand."""

import json
import sys

import pytest
from sacrebleu.metrics import BLEU

from fairseq_admin.analysis import errors, plotting
from fairseq_admin.errors import UserError
from fairseq_admin_cli.main import main, parser

REFERENCE = ["the cat sat on the mat .", "the dog ran .", "a " * 11 + "zebra ."]
SYSTEM = ["the cat sat on a mat .", "the the ran .", "a " * 11 + "horse ."]
OTHER = ["the dog sat on the rug .", "a dog ran .", "the zebra ."]
TRAIN = ["the cat . the cat . the cat .", "a dog", "a dog", "zebra", "a cat on the mat sat"]


@pytest.fixture
def measured(tmp_path):
    """Runs the analysis over files of the given lines; options by name."""

    def make(*systems, **given):
        arguments = []
        given = {"target_lang": "en", **given}
        for name, lines in (*enumerate(systems), *given.items()):
            if isinstance(lines, list):
                path = tmp_path / f"{name}.txt"
                path.write_text("".join(f"{line}\n" for line in lines))
                lines = str(path)
            arguments += [f"--{name.replace('_', '-')}"] if isinstance(name, str) else []
            arguments += [] if lines is True else [lines]
        options = parser("analyze").parse_args(["analyze", "errors", *arguments])
        result = errors.measure(options)
        return json.loads(json.dumps(result, allow_nan=False))

    return make


def generated(hypotheses, targets):
    """Lines as fairseq-generate prints them."""
    return [
        line
        for i, (hypothesis, target) in enumerate(zip(hypotheses, targets))
        for line in (f"T-{i}\t{target}", f"D-{i}\t-0.5\t{hypothesis}")
    ]


def rows(table):
    return {row.pop("bucket"): row for row in table}


def test_accuracy_by_counts_in_the_training_text(measured):
    """Counts there: dog 2; zebra, mat, sat and on 1; a and . 3; cat and the 4; ran 0."""
    result = measured(SYSTEM, reference=REFERENCE, train_text=TRAIN)
    assert result["counts_of"].endswith("train_text.txt")
    found = rows(result["systems"][0]["frequencies"])
    # ran is right; horse, which no training text has either, is too much
    assert found["<1"] == {"words": 1, "recall": 1, "precision": 0.5, "f1": 0.6667}
    # of sat, on, mat and zebra the last is missing
    assert found["1"] == {"words": 4, "recall": 0.75, "precision": 1, "f1": 0.8571}
    assert found["2"] == {"words": 1, "recall": 0, "precision": None, "f1": 0}  # dog: not written
    # 11 a and 3 . are right, one a too much
    assert found["3"] == {"words": 14, "recall": 1, "precision": 0.9333, "f1": 0.9655}
    # cat right; the: 1 of 2, and 1 of 1 with one too much
    assert found["4"] == {"words": 4, "recall": 0.75, "precision": 0.75, "f1": 0.75}
    assert sum(row["words"] for row in found.values()) == 7 + 4 + 13
    assert list(found) == ["<1", "1", "2", "3", "4"]  # the others are empty


def test_without_a_training_text_the_reference_is_counted(measured):
    result = measured(SYSTEM, reference=REFERENCE)
    assert result["counts_of"] == "reference"
    found = rows(result["systems"][0]["frequencies"])
    assert "<1" not in found  # horse is in no bucket of the reference
    assert found["[10,100)"]["words"] == 11  # a
    assert found["1"]["words"] == 7  # cat, sat, on, mat, dog, ran, zebra
    assert found["1"]["recall"] == round(5 / 7, 4)


def test_bleu_by_length(measured):
    """References of 7 and 4 tokens are in one bucket, that of 13 in the next."""
    result = measured(SYSTEM, reference=REFERENCE)
    short, long = result["systems"][0]["lengths"]
    assert (short["bucket"], short["sentences"]) == ("<10", 2)
    assert (long["bucket"], long["sentences"]) == ("[10,20)", 1)
    # n-grams without horse: 12 of 13 words, 10 of 12 pairs, 9 of 11, 8 of 10
    precisions = (12 / 13) * (10 / 12) * (9 / 11) * (8 / 10)
    metric = BLEU()
    assert short["bleu"] == round(metric.corpus_score(SYSTEM[:2], [REFERENCE[:2]]).score, 2)
    assert long["bleu"] == pytest.approx(100 * precisions ** (1 / 4), abs=0.01)
    assert result["signature"] == str(metric.get_signature())


def test_several_systems_of_any_segmentation(measured):
    """T- lines are the reference; pieces and Moses' escapes make no difference."""
    reference = ["it 's a dog & a cat", "the end"]
    pieces = [["it &apos;s a d@@ og &amp; the cat", "the end"], ["it &apos;s a dog", "the e@@ nd"]]
    targets = ["it &apos;s a dog &amp; a c@@ at", "the end"]
    result = measured(*(generated(x, targets) for x in pieces), moses=True)
    first, second = result["systems"]
    raw = measured(["it's a dog & the cat", "the end"], reference=["it's a dog & a cat", "the end"])
    assert first["frequencies"] == raw["systems"][0]["frequencies"]
    assert first["lengths"] == raw["systems"][0]["lengths"]
    assert [s["label"] for s in result["systems"]] == ["0", "1"]
    assert sum(row["words"] for row in first["frequencies"]) == len(" ".join(reference).split())
    assert second["lengths"][0]["bleu"] < first["lengths"][0]["bleu"]


def test_words_of_chinese_are_its_characters(measured):
    """Which the reference has: 我 2, 们 1, 见 1, 。 1; the system wrote 他 for 们."""
    result = measured(["我他我见。"], reference=["我们我见。"], target_lang="zh")
    assert "|tok:zh|" in result["signature"]
    (length,), frequencies = result["systems"][0]["lengths"], result["systems"][0]["frequencies"]
    assert (length["bucket"], length["sentences"]) == ("<10", 1)
    found = rows(frequencies)
    assert (found["1"]["words"], found["1"]["recall"]) == (3, round(2 / 3, 4))
    assert (found["2"]["words"], found["2"]["recall"]) == (2, 1)
    result = measured(["我他我见。"], reference=["我们我见。"], target_lang="zh", tokenize="13a")
    assert "|tok:13a|" in result["signature"]


def test_labels_and_the_figure(measured, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("\n".join(SYSTEM) + "\n")
    (tmp_path / "b.txt").write_text("\n".join(OTHER) + "\n")
    systems = f"admin={tmp_path / 'a.txt'}", f"post-ln={tmp_path / 'b.txt'}"
    result = measured(*systems, reference=REFERENCE, train_text=TRAIN)
    assert [system["label"] for system in result["systems"]] == ["admin", "post-ln"]
    plotting.plot_errors(result, str(tmp_path / "errors.png"))
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    figures = []
    monkeypatch.setattr(plotting, "save", lambda figure, _: figures.append(figure))
    plotting.plot_errors(result, "")
    lengths, frequencies = figures[0].axes
    bars = [[bar.get_height() for bar in bars] for bars in frequencies.containers]
    assert bars == [[row["f1"] for row in s["frequencies"]] for s in result["systems"]]
    assert lengths.get_xticklabels()[0].get_text() == "<10\n2"
    assert "train_text.txt" in frequencies.get_xlabel()


def test_mistakes_are_one_line(measured):
    with pytest.raises(UserError, match="has 2 lines, the reference 3"):
        measured(SYSTEM, OTHER[:2], reference=REFERENCE)
    with pytest.raises(UserError, match="has no T- lines to compare with: give --reference"):
        measured(SYSTEM)
    with pytest.raises(UserError, match="in another order, or of another set"):
        measured(generated(SYSTEM, REFERENCE), generated(OTHER, REFERENCE[::-1]))
    with pytest.raises(UserError, match="are both 0: write LABEL="):
        measured(SYSTEM, "0=other.txt", reference=REFERENCE)
    with pytest.raises(UserError, match="cannot read missing.txt"):
        measured(SYSTEM, reference=REFERENCE, train_text="missing.txt")
    with pytest.raises(UserError, match="train_text.txt is cut into subwords"):
        measured(SYSTEM, reference=REFERENCE, train_text=[f"@@ {line}" for line in TRAIN])
    with pytest.raises(UserError, match="is IWSLT.s train.tags markup"):
        measured(SYSTEM, reference=REFERENCE, train_text=["<talkid>1</talkid>", *TRAIN])


def test_without_compare_mt(monkeypatch):
    monkeypatch.setitem(sys.modules, "compare_mt", None)
    with pytest.raises(SystemExit, match=r"pip install 'fairseq_admin\[analysis\]'"):
        main(["analyze", "errors", "system.txt", "--target-lang", "en"])
