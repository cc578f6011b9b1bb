"""A server or a scorer needs no training framework: score, translate and report where neither torch
nor fairseq is installed."""

import json
import re
import subprocess
import venv
from importlib import metadata
from pathlib import Path

import pytest

from fairseq_admin.serving.export import export_model
from fairseq_admin.serving.translate import LineTranslator

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {  # what each command is said to need
    "score": ["sacrebleu", "sacremoses", "regex"],
    "translate": ["ctranslate2", "sentencepiece", "sacremoses", "regex"],
    "report": ["jinja2", "matplotlib", "sacrebleu", "sacremoses", "regex"],
}
LOG = "train_inner | epoch 001: 5 / 9 loss=2, ppl=9.5, num_updates=5, lr=1"


def with_dependencies(names):
    """Installed distributions of these names, and of all that they need."""
    found, todo = {}, list(names)
    while todo:
        name = re.split(r"[ ;<>=!~\[(]", todo.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        required = found[name].requires or []
        todo += [each for each in required if "extra ==" not in each]
    return found.values()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs `fairseq-admin` of an environment that has the packages of one command alone."""
    made = {}

    def run(packages, *arguments, command=None, stdin=""):
        if packages not in made:
            made[packages] = tmp_path_factory.mktemp(packages)
            venv.create(made[packages], with_pip=False)
            (site,) = made[packages].glob("lib/*/site-packages")
            for package in ("fairseq_admin", "fairseq_admin_cli"):
                (site / package).symlink_to(ROOT / package)
            for package in with_dependencies(PACKAGES[packages]):
                for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
                    if not (site / top).exists():
                        (site / top).symlink_to(package.locate_file(top))
        words = [made[packages] / "bin" / "python", "-I", "-m", "fairseq_admin_cli.main"]
        words.append(command or packages)
        return subprocess.run(
            [str(word) for word in (*words, *arguments)],
            cwd=made[packages],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_command_that_needs_torch_says_so(bare, tmp_path):
    done = bare("score", "--help")
    assert done.returncode == 0 and "--reference" in done.stdout
    (tmp_path / "in.pt").touch()
    done = bare("score", tmp_path / "in.pt", tmp_path / "out.pt", command="fold")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "fold needs torch, which is not installed" in done.stderr


def test_score(bare, tmp_path):
    (tmp_path / "hypotheses").write_text("a b c d e\nf g h i j\n")
    (tmp_path / "reference").write_text("a b c d e\nf g h i k\n")
    files = [tmp_path / "hypotheses", "--reference", tmp_path / "reference"]
    done = bare("score", *files, "--target-lang", "en")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["scores"]["bleu"]["score"] < 100


def test_translate(bare, transformer, corpus, tmp_path):
    folder, text = str(tmp_path / "model"), (corpus.parent / "test.de").read_text()
    export_model(str(transformer), str(corpus), folder)
    done = bare("translate", folder, stdin=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(LineTranslator(folder).translate(text.splitlines()))
    assert len(done.stdout.split()) > 30


def test_report(bare, tmp_path):
    """All but what only a checkpoint says, and a word on that."""
    (tmp_path / "train.log").write_text(f"{LOG}\n")
    (tmp_path / "checkpoint_last.pt").write_bytes(b"unread")
    done = bare("report", tmp_path, "--output", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "9.50" in page and "torch is not installed" in page and "data:image/png" in page
