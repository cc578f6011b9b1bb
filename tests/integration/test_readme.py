"""The commands of README and docs run, at tiny sizes; their numbers are those of the records."""

import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_admin_cli.main import main
from records.table import rewritten

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
TEXT = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
README = TEXT["README.md"]
LONGEST = 200  # lines of the README
SIZES = {"encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "encoder_layers": 2}
SIZES = {**SIZES, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
FLAGS = " ".join(f"--{name.replace('_', '-')} {size}" for name, size in SIZES.items())
REAL = Path(sys.executable).parent  # the environment's commands, which take seconds to start
SPLITS = {"train": 200, "valid": 20, "test": 20}  # pairs


def blocks(page: str, language: str = "bash"):
    """The commands of a page."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT[page], flags=re.DOTALL)


def block_with(page: str, command: str) -> str:
    """The block of a page that holds *command*."""
    return next(block for block in blocks(page) if command in block)


def tiny(block: str) -> str:
    """The same commands with tiny sizes, few updates and no GPU."""
    block = re.sub(r"(--arch \S+)", rf"\1 {FLAGS} --cpu", block)
    block = re.sub(r"--max-update \d+", "--max-update 12", block)
    block = re.sub(r"fairseq-generate (\S+)", r"fairseq-generate \1 --cpu", block)
    block = block.replace("--config-dir configs", f"--config-dir {ROOT}/configs")
    block = block.replace("$PWD/fairseq_admin", f"{ROOT}/fairseq_admin")
    block = block.replace("$PWD/runs/demo/data/bin", "$PWD/data-bin")
    block = block.replace("--num-epoch-checkpoints 10", "--num-epoch-checkpoints 2")
    block = block.replace("vocab_size=8000", "vocab_size=40")
    block = block.replace("bash scripts/setup.sh && source .venv/bin/activate\n", "")
    block = re.sub(r"(bash scripts/prepare.sh --train .*)", r"\1 --subwords 60", block)
    block = block.replace("bash scripts/", f"bash {ROOT}/scripts/")
    overrides = " ".join(f"model.{name}={size}" for name, size in SIZES.items())
    return re.sub(r"(--config-name \S+)", rf"\1 optimization.max_update=12 {overrides}", block)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, commands) -> Path:
    """A user's folder with text files, and what training.md's commands make of them."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "raw").mkdir()
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefgh", k=4)) for _ in range(12)]
    for split, pairs in SPLITS.items():
        lines = [" ".join(rng.choices(words, k=rng.randint(2, 9))) for _ in range(pairs)]
        for lang in ("de", "en"):
            for place in (folder / "raw", folder):
                (place / f"{split}.{lang}").write_text("\n".join(lines) + "\n")
    bash(tiny(block_with("docs/training.md", "fairseq-preprocess")), folder, commands)
    return folder


def bash(block: str, folder: Path, commands: Path = REAL) -> str:
    """Run *block* as a user would, with this environment's *commands* on the PATH."""
    path = f"{commands}:{os.environ['PATH']}"
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


def at_once(block: str) -> str:
    """The same with processes that start at once; a recipe's smoke test has the starters'."""
    for script, module in {"prepare": "corpora.prepare", "evaluate": "records.evaluation"}.items():
        start = f"python -W ignore {ROOT}/scripts {module}"
        block = block.replace(f"bash {ROOT}/scripts/{script}.sh", start)
    return block


def test_own_text_to_a_served_model(folder, commands):
    """The README's commands from raw text on, as they stand there but for sizes."""
    out = bash(at_once(tiny(block_with("README.md", "prepare.sh --train"))), folder, commands)
    assert "train 200, valid 20, test 20 pairs" in out
    assert "encoder.layers.1.ffn" in out  # the table of omegas
    assert re.search(
        r"^(will (not )?learn|at risk): learns with probability [01]\.\d\d", out, re.MULTILINE
    )
    record = json.loads((folder / "runs/mine/eval/record.json").read_text())
    assert record["fold"]["same_translations"] == record["sentences"] == 20
    assert record["averaged"] and len(record["averaged"]) == 2 and "BLEU" in out
    assert record["train_ppl"] and record["outcome"]
    raw = folder / "runs/data/mine/raw/test.en"
    assert raw.read_text() == (folder / "raw/test.en").read_text()
    assert len((folder / "test.en").read_text().splitlines()) == 20


EXAMPLES = {  # a command to copy, and the recipe whose settings it has
    ("README.md", "fairseq-train "): "wmt14_en_de_admin_18l",
    ("docs/training.md", "fairseq-train "): "iwslt14_de_en_admin_6l",
    ("docs/training.md", "--omega-file"): "wmt14_en_de_admin_18l",
}


@pytest.mark.parametrize("place", EXAMPLES)
def test_examples_have_settings_that_train(place):
    """The published ones, tokens an update among them; scaled down, no test would see another."""
    from recipes.configs import load_config

    config = load_config(EXAMPLES[place])
    command = block_with(*place).replace("\\\n", " ")
    (words,) = (shlex.split(x) for x in command.splitlines() if " --optimizer " in x)
    value = {a: b for a, b in zip(words, [*words[1:], ""]) if a.startswith("--")}
    tokens = int(value["--max-tokens"]) * int(value.get("--update-freq", 1))
    gpus = config.distributed_training.get("distributed_world_size", 1)
    assert (
        tokens == gpus * config.dataset.max_tokens * config.optimization.get("update_freq", [1])[0]
    )
    assert value["--optimizer"] == config.optimizer._name
    assert value["--lr-scheduler"] == config.lr_scheduler._name
    for flag, expected in {
        "--lr": config.optimization.lr[0],
        "--warmup-updates": config.lr_scheduler.warmup_updates,
        "--warmup-init-lr": config.lr_scheduler.warmup_init_lr,
        "--label-smoothing": config.criterion.label_smoothing,
        "--weight-decay": config.optimizer.get("weight_decay", 0),
    }.items():
        assert float(value.get(flag, 0)) == float(expected), flag
    for flag in ("--dropout", "--attention-dropout", "--activation-dropout"):
        assert float(value[flag]) == config.model[flag[2:].replace("-", "_")], flag


@pytest.fixture(scope="module")
def trained(folder, commands) -> str:
    """What training and decoding print."""
    return bash(tiny(block_with("docs/training.md", "fairseq-generate")), folder, commands)


@pytest.fixture(scope="module")
def finished(folder, commands, trained) -> str:
    """What is printed by the commands after the training."""
    block = block_with("docs/after_training.md", "fairseq-admin average")
    return bash(tiny(block), folder, commands)


def test_train_and_generate(trained):
    assert "encoder.layers.1.ffn" in trained  # the table of omegas
    assert len(re.findall(r"^D-\d+", trained, flags=re.MULTILINE)) == 20


def test_profile_and_omega_file(folder, commands):
    out = bash(tiny(block_with("docs/training.md", "fairseq-admin profile")), folder, commands)
    profile = json.loads((folder / "profile.json").read_text())
    omega = profile["stacks"]["decoder"]["sublayers"][-1]["omega"]
    table = re.findall(r"decoder\.layers\.1\.ffn +\S* +(\S+)", out)
    assert table == [f"{omega:.4f}"] * 2  # once profiled, once from the file
    assert (folder / "omegas.png").exists()


def test_hydra(folder, commands):
    bash(tiny(block_with("docs/training.md", "fairseq-hydra-train")), folder, commands)
    assert (folder / "runs" / "hydra" / "checkpoint_last.pt").exists()


@pytest.mark.slow  # test_ranks.py has real ranks too
def test_torchrun_on_cpus(folder):
    out = bash(tiny(block_with("docs/training.md", "--nproc_per_node 2 bash")), folder)
    assert "training on 2 devices" in out


def test_python_example(folder, monkeypatch, capsys):
    """In this process, smaller by options; three updates move the weights, then fold."""
    (code,) = blocks("docs/training.md", "python")
    code = code.replace('"--max-tokens"', f'*{FLAGS.split()!r}, "--max-tokens"')
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["example"])
    names = {}
    exec(compile(code, "training.md", "exec"), names)
    out = capsys.readouterr().out
    assert "encoder.layers.1.ffn" in out and "in fp64" in out
    assert names["trainer"].get_num_updates() == 3 and (folder / "plain.pt").exists()


@pytest.mark.parametrize("page", PAGES)
def test_scripts_and_links_exist(page):
    text, here = TEXT[page], (ROOT / page).parent
    for script in re.findall(r"bash (scripts/\S+\.sh)", text):
        assert (ROOT / script).exists()
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        path = here / path if path else ROOT / page
        assert path.exists(), link
        if anchor and path.suffix == ".md":
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}


def test_links_to_code_point_at_what_they_name():
    found = re.findall(r"\[`(\w+)`\]\((\S+?)#L(\d+)\)", README)
    assert len(found) > 5
    for name, path, number in found:
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        (defined,) = (n for n, x in enumerate(lines, 1) if re.match(rf"\s*(def|class) {name}\b", x))
        assert defined == int(number), f"README.md: {name} is in line {defined} of {path}"


def test_the_readme_is_short():
    assert len(README.splitlines()) <= LONGEST


def test_messages_are_those_of_the_code():
    """What troubleshooting.md quotes is said by the plugin or by fairseq."""
    import fairseq

    said = ""
    packages = (ROOT / "fairseq_admin", ROOT / "fairseq_admin_cli", Path(fairseq.__file__).parent)
    for package in packages:
        for path in package.rglob("*.py"):
            said += re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))
    quoted = re.findall(r"`([A-Za-z.][^`\n]* [^`\n]*)`", TEXT["docs/troubleshooting.md"])
    commands = ("fairseq-admin ", "python ", "scripts/")
    messages = [text for text in quoted if not text.startswith(commands)]
    messages += re.findall(r'## "(.+)"', TEXT["docs/troubleshooting.md"])
    assert len(messages) > 8
    for message in messages:
        for part in re.split(r"\.\.\.|0\.0", message):
            assert part.strip() in said, message


def test_after_training(folder, finished):
    assert "| BLEU |" in finished and "in fp64" in finished
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
    lines = block_with("docs/analysis.md", "fairseq-admin analyze").splitlines()
    return [shlex.split(line)[1:] for line in lines]


LONG = [pytest.mark.slow]  # of the analysis that builds the deepest models


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, marks=LONG * ("output-change" in words), id=" ".join(words[:2]))
        for words in analysis_commands()
    ],
)
def test_analyses(folder, finished, words, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["fairseq-admin"])
    sized = "checkpoints/checkpoint1.pt" not in words and words[1] not in ("curves", "errors")
    words = ["2" if word == "18" else word for word in words]
    main([*words, *(FLAGS.split() if sized and words[0] == "analyze" else [])])
    written = re.findall(r"\S+\.(?:json|png|html)", capsys.readouterr().out)
    assert written and all((folder / name).exists() for name in written)


def test_evaluate(folder, trained, commands):
    block = at_once(tiny(block_with("docs/after_training.md", "scripts/evaluate.sh checkpoints")))
    out = bash(block, folder, commands)
    record = json.loads((folder / "checkpoints" / "eval" / "record.json").read_text())
    assert record["fold"]["same_translations"] == record["sentences"] == 20
    assert (folder / "checkpoints" / "eval" / "serve" / "model.bin").exists() and "BLEU" in out


def recipe_commands():
    """The lines that run a recipe, as words."""
    text = "".join(block for page in PAGES for block in blocks(page))
    lines = text.replace("\\\n", "").splitlines()
    return [shlex.split(line, comments=True)[2:] for line in lines if "bash scripts/run.sh" in line]


@pytest.mark.parametrize("words", recipe_commands(), ids=" ".join)
def test_recipes_are_understood(words, monkeypatch, capsys):
    from recipes.run import main as run

    seed = [] if {"--help", "--seed", "--seeds"} & set(words) else ["--seed", "1"]
    monkeypatch.setattr(sys, "argv", ["run.sh", words[0], "--dry-run", *seed, *words[1:]])
    if "--help" in words:
        with pytest.raises(SystemExit) as end:
            run()
        assert end.value.code == 0
        return
    run()
    out = capsys.readouterr().out
    assert "tokens an update" in out and "evaluate.sh" in out and "\ncheckpoint:\n" in out


def test_back_translation_is_understood(folder, commands):
    (line,) = (
        x
        for x in block_with("docs/recipes.md", "back_translate.py").splitlines()
        if "back_translate" in x
    )
    with pytest.raises(AssertionError, match="no such file: reverse.pt"):
        bash(line.replace("scripts/", f"{ROOT}/scripts/"), folder, commands)


@pytest.mark.parametrize("page", [*PAGES, "results/figures/README.md"])
def test_tables_are_those_of_the_records(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    assert rewritten(text, path.parent) == text


@pytest.mark.parametrize("page", PAGES)
def test_every_table_is_made_of_records(page):
    """No BLEU, perplexity or speed stands in a table that a hand wrote."""
    by_hand = re.sub(r"<!-- table: .*?<!-- end of table -->", "", TEXT[page], flags=re.DOTALL)
    rows = [line for line in by_hand.splitlines() if line.startswith("|")]
    assert not re.findall(r"\d\.\d", "\n".join(row for row in rows if "`" not in row))


def test_the_caption_has_the_numbers_of_the_records():
    caption = next(line for line in README.splitlines() if line.startswith("*The demo below"))
    scores = []
    for name in ("demo_post_ln", "demo_admin"):
        record = json.loads((ROOT / "results" / "demo" / f"{name}.json").read_text())
        scores.append(f"{record['scores']['bleu']['score']:.2f}")
    assert re.findall(r"\d+\.\d+", caption) == scores
