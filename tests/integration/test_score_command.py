"""`fairseq-admin score` as a process: one record, a table, one line where something is wrong."""

import json

import pytest
from sacrebleu.metrics import BLEU

REFERENCES = ["A man sings a song.", "Two dogs run over a field.", "It is cold, isn't it?"]
HYPOTHESES = ["A man sings a song.", "Two dogs run in the field.", "It is cold."]
WORSE = ["A man is singing.", "Two cats run in the field.", "It is cold."]


def output(hypotheses, order=(2, 0, 1)):
    """stdout of fairseq-generate on SentencePiece pieces, longest sentences first or last."""
    lines = ["2024-01-01 12:00:00 | INFO | fairseq_cli.generate | loading model(s)"]
    for i in order:
        target, text = (f"▁{x[i]}".replace(" ", " ▁") for x in (REFERENCES, hypotheses))
        lines += [f"S-{i}\t▁Quelle", f"T-{i}\t{target}"]
        lines += [f"H-{i}\t-0.4567\t{text}", f"D-{i}\t-0.4567\t{text}", f"P-{i}\t-0.1 -0.2"]
    lines += ["Generate test with beam=5: BLEU4 = 1.00, 9.0/9.0/9.0/9.0 (BP=1.000)"]
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture
def score(lab, tmp_path):
    """A function that runs the command in a folder with three systems and the reference."""
    files = {
        "system.txt": output(HYPOTHESES),
        "baseline.txt": output(WORSE, order=(0, 1, 2)),
        "part.txt": output(HYPOTHESES, order=(2, 0)),
        "reference.txt": "".join(f"{line}\r\n" for line in REFERENCES),
    }
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())

    def run(*arguments, redirect="2>&1"):
        command = ["sh", "-c", f'exec "$@" {redirect}', "sh", lab.bin / "fairseq-admin", "score"]
        return lab.run([*command, "--target-lang", "en", *arguments], cwd=tmp_path)

    return run


def test_record(score, tmp_path):
    run = score(
        "system.txt", "--reference", "reference.txt", "--output", "record.json", redirect="2>log"
    ).ok()
    record = json.loads(run.output)  # nothing else is on stdout
    assert json.loads((tmp_path / "record.json").read_text()) == record
    bleu = BLEU()
    expected = round(bleu.corpus_score(HYPOTHESES, [REFERENCES]).score, 2)
    assert record["scores"]["bleu"] == {"score": expected, "signature": str(bleu.get_signature())}
    scores = ["bleu", "chrf", "ter", "tokenized_bleu", "compound_split_bleu"]
    assert list(record["scores"]) == scores
    assert record["system"] == "system.txt"
    assert record["reference"] == "reference.txt"
    assert record["sentences"] == 3
    assert not list(tmp_path.glob("*.partial"))


def test_table_of_two_systems(score, tmp_path):
    arguments = ["--baseline", "baseline.txt", "--name", "18-18 | Admin", "--output", "record.json"]
    run = score("system.txt", "--markdown", *arguments, redirect="2>log").ok()
    record = json.loads((tmp_path / "record.json").read_text())
    scores = record["scores"].values()
    head, rule, row, empty, *signatures = run.output.splitlines()
    assert head == "| system | BLEU | chrF | TER | tokenized BLEU | compound-split BLEU |"
    assert rule.count("---") == 6
    cells = " | ".join(f"{s['score']:.2f}" for s in scores)
    assert row == rf"| 18-18 \| Admin | {cells} |"
    assert not empty
    *signatures, test = signatures
    assert [line.split("`")[1] for line in signatures] == [s["signature"] for s in scores]
    assert "baseline.txt" in test
    assert f"p = {record['significance']['p_value']:.4f}" in test
    assert "|bs:1000|seed:12345|" in test


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["part.txt", "--reference", "reference.txt"], "no hypothesis for 1 id (1)"),
        (["system.txt", "--output", "folder"], "cannot write folder: Is a directory"),
        (
            ["system.txt", "--reference", "reference.txt", "--output", "./reference.txt"],
            "./reference.txt is an input of this command",
        ),
    ],
)
def test_mistakes_are_one_line(score, tmp_path, arguments, told):
    (tmp_path / "folder").mkdir()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    run = score("--output", "record.json", *arguments)
    assert run.code == 1
    assert run.last_line.startswith("fairseq_admin: ")
    assert told in run.last_line
    assert "Traceback" not in run.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
