"""The demo's bounds, by the demo itself; three ways to translate with its model."""

import json
import subprocess
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU

from fairseq_admin.scoring.outputs import read_lines, read_output
from fairseq_admin.serving.export import export_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # seconds
ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "runs" / "demo"


@pytest.fixture(scope="module")
def records():
    subprocess.run(["bash", ROOT / "scripts" / "demo.sh"], check=True)
    return {
        name: json.loads((DEMO / name / "eval" / "record.json").read_text())
        for name in ("demo_admin", "demo_post_ln")
    }


def test_admin_translates_where_post_ln_does_not(records):
    assert records["demo_admin"]["scores"]["bleu"]["score"] >= 90
    assert records["demo_post_ln"]["scores"]["bleu"]["score"] <= 20


def test_the_report_is_there(records):
    assert "demo_post_ln" in (DEMO / "report.html").read_text()


def test_unfolded_folded_and_exported_translate_the_same(records, tmp_path):
    """Over the 1000 sentences: the fold all of them, the export 99.5 % in float32, and in int8 BLEU
    within 0.1."""
    folder = DEMO / "demo_admin" / "eval"
    files = (folder / f"{name}.txt" for name in ("generate", "folded"))
    unfolded, folded = (read_output(str(file))[0] for file in files)
    assert len(unfolded) == 1000 and folded == unfolded
    data = DEMO / "data"
    model = [str(folder / "folded.pt"), str(data / "bin"), str(tmp_path / "float32")]
    export_model(*model, sentencepiece=[str(data / "spm" / "spm.model")])
    exact, quantized = (
        translated(folder_, data / "raw" / "test.de") for folder_ in (model[2], folder / "serve")
    )
    assert sum(a == b for a, b in zip(exact, unfolded)) >= 995
    references = [read_lines(str(data / "raw" / "test.en"))]
    bleu = [BLEU().corpus_score(texts, references).score for texts in (unfolded, quantized)]
    assert abs(bleu[0] - bleu[1]) <= 0.1


def translated(folder, path):
    """Lines of `fairseq-admin translate` for those of the file *path*."""
    command = [ROOT / ".venv" / "bin" / "fairseq-admin", "translate", folder]
    with open(path) as source:
        run = subprocess.run(command, stdin=source, stdout=subprocess.PIPE, check=True)
    return run.stdout.decode().split("\n")[:-1]
