"""The README's commands run, at tiny sizes; its numbers are those of the records."""

import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece

from fairseq_admin.cli import main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
SIZES = {"encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "encoder_layers": 2}
SIZES = {**SIZES, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
FLAGS = " ".join(f"--{name.replace('_', '-')} {size}" for name, size in SIZES.items())


def block_with(command: str) -> str:
    """The README's block that holds *command*."""
    return next(block for block in BLOCKS if command in block)


def tiny(block: str) -> str:
    """The same commands with tiny sizes, few updates and no GPU."""
    block = re.sub(r"(--arch \S+)", rf"\1 {FLAGS} --cpu", block)
    block = re.sub(r"--max-update \d+", "--max-update 12", block)
    block = block.replace("fairseq-generate data-bin", "fairseq-generate data-bin --cpu")
    block = block.replace("--config-dir configs", f"--config-dir {ROOT}/configs")
    block = block.replace("$PWD/fairseq_admin", f"{ROOT}/fairseq_admin")
    block = block.replace("$PWD/runs/demo/data/bin", "$PWD/data-bin")
    block = block.replace("--num-epoch-checkpoints 10", "--num-epoch-checkpoints 2")
    block = block.replace("bash scripts/", f"bash {ROOT}/scripts/")
    overrides = " ".join(f"model.{name}={size}" for name, size in SIZES.items())
    return re.sub(r"(--config-name \S+)", rf"\1 optimization.max_update=12 {overrides}", block)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder with text files, and what the README's first command makes of them."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "raw").mkdir()
    (folder / "text").mkdir()
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefgh", k=4)) for _ in range(12)]
    for split, pairs in (("train", 200), ("valid", 20), ("test", 20)):
        lines = [" ".join(rng.choices(words, k=rng.randint(2, 9))) for _ in range(pairs)]
        for lang in ("de", "en"):
            (folder / "raw" / f"{split}.{lang}").write_text("\n".join(lines) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "raw" / "train.de"),
        model_prefix=str(folder / "spm"),
        model_type="bpe",
        vocab_size=40,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    for raw in (folder / "raw").iterdir():
        segmented = (" ".join(pieces.encode(x, out_type=str)) for x in raw.read_text().splitlines())
        (folder / "text" / raw.name).write_text("\n".join(segmented) + "\n")
    bash(block_with("fairseq-preprocess"), folder)
    return folder


def bash(block: str, folder: Path) -> str:
    """Run *block* as a user would, with this environment's commands on the PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_train_and_generate(folder):
    out = bash(tiny(block_with("fairseq-generate")), folder)
    assert "encoder.layers.1.ffn" in out  # the table of omegas
    assert len(re.findall(r"^D-\d+", out, flags=re.MULTILINE)) == 20


def test_profile_and_omega_file(folder):
    out = bash(tiny(block_with("fairseq-admin profile")), folder)
    profile = json.loads((folder / "profile.json").read_text())
    omega = profile["stacks"]["decoder"]["sublayers"][-1]["omega"]
    table = re.findall(r"decoder\.layers\.1\.ffn +\S* +(\S+)", out)
    assert table == [f"{omega:.4f}"] * 2  # once profiled, once from the file
    assert (folder / "omegas.png").exists()


def test_hydra(folder):
    bash(tiny(block_with("fairseq-hydra-train")), folder)
    assert (folder / "runs" / "mine" / "checkpoint_last.pt").exists()


def test_torchrun_on_cpus(folder):
    out = bash(tiny(block_with("--nproc_per_node 2 bash")), folder)
    assert "training on 2 devices" in out


def test_scripts_and_links_exist():
    for script in re.findall(r"bash (scripts/\S+\.sh)", README):
        assert (ROOT / script).exists()
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_after_training(folder):
    """After test_train_and_generate, whose checkpoints it takes."""
    out = bash(tiny(block_with("fairseq-admin average")), folder)
    assert "| BLEU |" in out and "in fp64" in out
    translations = {
        name: dict(re.findall(r"^D-(\d+)\t\S+\t(.*)$", (folder / name).read_text(), re.MULTILINE))
        for name in ("generate.txt", "folded.txt")
    }
    joined = {i: text.replace(" ", "") for i, text in translations["folded.txt"].items()}
    undone = {i: text.replace(" ", "") for i, text in translations["generate.txt"].items()}
    assert len(undone) == 20 and {i: x.replace("\u2581", "") for i, x in joined.items()} == undone
    assert len((folder / "test.en").read_text().splitlines()) == 20
    assert json.loads((folder / "score.json").read_text())["sentences"] == 20


def analysis_commands():
    """The lines that analyze or report, as words."""
    lines = block_with("fairseq-admin analyze").splitlines()
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("words", analysis_commands(), ids=lambda words: " ".join(words[:2]))
def test_analyses(folder, words, monkeypatch, capsys):
    """After test_after_training, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["fairseq-admin"])
    sized = "checkpoints/checkpoint1.pt" not in words and words[1] not in ("curves", "errors")
    words = ["2" if word == "18" else word for word in words]
    main([*words, *(FLAGS.split() if sized and words[0] == "analyze" else [])])
    written = re.findall(r"\S+\.(?:json|png|html)", capsys.readouterr().out)
    assert written and all((folder / name).exists() for name in written)


def test_evaluate(folder):
    out = bash(tiny(block_with("scripts/evaluate.sh checkpoints")), folder)
    record = json.loads((folder / "checkpoints" / "eval" / "record.json").read_text())
    assert record["fold"]["same_translations"] == record["sentences"] == 20
    assert (folder / "checkpoints" / "eval" / "serve" / "model.bin").exists() and "BLEU" in out


def recipe_commands():
    """The lines that run a recipe, as words."""
    lines = "".join(BLOCKS).splitlines()
    return [shlex.split(line, comments=True)[2:] for line in lines if "bash scripts/run.sh" in line]


@pytest.mark.parametrize("words", recipe_commands(), ids=" ".join)
def test_recipes_are_understood(words, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from recipes.run import main as run

    monkeypatch.setattr(sys, "argv", ["run.sh", *words, "--dry-run"])
    if "--help" in words:
        with pytest.raises(SystemExit) as end:
            run()
        assert end.value.code == 0
        return
    run()
    out = capsys.readouterr().out
    assert "tokens an update" in out and "evaluate.sh" in out and "\ncheckpoint:\n" in out


def test_own_text_is_prepared(folder):
    block = block_with("prepare.sh --train")
    line = next(x for x in block.splitlines() if "--train" in x)
    raw = re.sub(r"(\w+\.(?:de|en))\b", r"raw/\1", line).replace("scripts/", f"{ROOT}/scripts/")
    out = bash(f"{raw} --subwords 60", folder)
    assert "train 200, valid 20, test 20 pairs" in out
    assert (folder / "runs/data/mine/bin/train.de-en.de.bin").exists()
    assert (folder / "runs/data/mine/raw/test.en").read_text() == (
        folder / "raw/test.en"
    ).read_text()


def test_back_translation_is_understood(folder):
    (line,) = (x for x in block_with("back_translate.py").splitlines() if "back_translate" in x)
    with pytest.raises(AssertionError, match="no such file: reverse.pt"):
        bash(line.replace("scripts/", f"{ROOT}/scripts/"), folder)


@pytest.mark.parametrize("page", ["README.md", "docs/costs.md", "results/figures/README.md"])
def test_tables_are_those_of_the_records(page):
    command = [sys.executable, ROOT / "scripts" / "table.py", "--check", ROOT / page]
    run = subprocess.run(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    assert run.returncode == 0, run.stderr


def test_every_table_is_made_of_records():
    """No BLEU, perplexity or speed stands in a table that a hand wrote."""
    by_hand = re.sub(r"<!-- table: .*?<!-- end of table -->", "", README, flags=re.DOTALL)
    rows = [line for line in by_hand.splitlines() if line.startswith("|")]
    assert not re.findall(r"\d\.\d", "\n".join(row for row in rows if "`" not in row))


def test_the_caption_has_the_numbers_of_the_records():
    caption = next(line for line in README.splitlines() if line.startswith("*The demo below"))
    scores = []
    for name in ("demo_post_ln", "demo_admin"):
        record = json.loads((ROOT / "results" / "demo" / f"{name}.json").read_text())
        scores.append(f"{record['scores']['bleu']['score']:.2f}")
    assert re.findall(r"\d+\.\d+", caption) == scores
