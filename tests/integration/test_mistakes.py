"""A user's mistake ends with one clear line, and nothing is lost."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest

# arguments of fairseq-train, and words that the line must hold: what is wrong and what to do
CASES = {
    "too many profile tokens": (["--profile-tokens", "8192"], ["8192", "fewer than 8192"]),
    "no profile tokens": (["--profile-tokens", "0"], ["--profile-tokens 0", "1 or more"]),
    "no sentence short enough": (
        ["--profile-tokens", "2"],
        ["300 pairs", "--profile-tokens"],
    ),
    "empty training set": (["DATA=EMPTY"], ["train.de-en", "holds no sentence", "EMPTY"]),
    "no data folder": (["DATA=NOWHERE"], ["no such data folder", "NOWHERE"]),
    "no dictionary": (["DATA=NODICT", "-s", "de", "-t", "en"], ["dict.en.txt", "preprocess"]),
    "no dictionary, languages not given": (["DATA=NODICT"], ["dict.en.txt", "preprocess"]),
    "dropout of 1": (["--dropout", "1.0"], ["variance 0.0", "dropout of 1"]),
    "Pre-LN encoder": (["--encoder-normalize-before"], ["takes --residual pre-ln"]),
    "Pre-LN decoder": (["--decoder-normalize-before"], ["takes --residual pre-ln"]),
    "no such method": (["--residual", "magic"], ["--residual magic", "admin, analytic, deepnorm"]),
    "another method": (["LAST=TRANSFORMER", "--residual", "keel"], ["Post-LN, the model of Keel"]),
    "omegas for none": (["--residual", "keel", "--omega-file", "ZERO"], ["--omega-file means not"]),
    "no omega file": (["--omega-file", "NOFILE"], ["cannot read", "NOFILE"]),
    "too few omegas": (["--omega-file", "SHORT"], ["has 2 sublayers", "model has 15 sublayers"]),
    "words for omegas": (["--omega-file", "WORDS"], ["WORDS, line 2", "no omega"]),
    "another JSON": (["--omega-file", "JSON"], ["JSON", "not a profile"]),
    "an omega of 0": (["--omega-file", "ZERO"], ["ZERO, line 1 holds an omega", ": '0.0'"]),
    "another depth": (
        ["LAST=ADMIN", "--encoder-layers", "4"],
        ["another depth", "3-3", "4-3", "--save-dir"],
    ),
    "another width": (
        ["LAST=ADMIN", "--encoder-embed-dim", "64"],
        ["another size", "sizes and dictionary"],
    ),
    "another model": (
        ["LAST=TRANSFORMER"],
        ["method Post-LN, the model of Admin", "--residual post-ln"],
    ),
    "a torn checkpoint": (["LAST=TORN"], ["checkpoint_last.pt is cut off", "move it away"]),
    "a torn checkpoint given": (["--restore-file", "TORN"], ["TORN is cut off"]),
    "fully sharded": (["--ddp-backend", "fully_sharded"], ["fully_sharded", "leave it out"]),
    "bf16": (["--bf16"], ["--bf16", "fairseq-hydra-train", "common.bf16=true"]),
    "a pruned model": (["--encoder-layers-to-keep", "0,2"], ["--encoder-layerdrop", "prune"]),
    "no such valid set": (["--valid-subset", "valid2"], ["no split valid2", "--valid-subset"]),
    "no valid set": (["DATA=NOVALID"], ["no split valid", "NOVALID"]),
    "cut data": (["DATA=CUT"], ["train.de-en.en.bin is cut off", "fairseq-preprocess"]),
    "bleu": (["--best-checkpoint-metric", "bleu"], ["give --eval-bleu"]),
}


@pytest.fixture(scope="module")
def places(admin, transformer, corpus, lab, tmp_path_factory):
    """Broken data folders and omega files, by the words that stand for them in CASES."""
    folder = tmp_path_factory.mktemp("broken")
    text = folder / "text"
    text.mkdir()
    for lang in ("de", "en"):
        (text / f"train.{lang}").write_text("")
    command = [lab.bin / "fairseq-preprocess", "--source-lang", "de", "--target-lang", "en"]
    command += ["--srcdict", corpus / "dict.de.txt", "--joined-dictionary"]
    command += ["--trainpref", text / "train", "--validpref", corpus.parent / "valid"]
    lab.run([*command, "--destdir", folder / "EMPTY"]).ok()
    shutil.copytree(corpus, folder / "NODICT")
    (folder / "NODICT" / "dict.en.txt").unlink()
    (folder / "SHORT").write_text("1.0\n1.5\n")
    (folder / "WORDS").write_text("0 1.0\nthe cat sat\n")
    (folder / "JSON").write_text(json.dumps({"omegas": [1.0]}))
    (folder / "ZERO").write_text("0.0\n" * 15)
    shutil.copytree(corpus, folder / "NOVALID", ignore=shutil.ignore_patterns("valid*"))
    shutil.copytree(corpus, folder / "CUT")
    os.truncate(folder / "CUT" / "train.de-en.en.bin", 100)
    shutil.copy(transformer, folder / "TORN")
    os.truncate(folder / "TORN", 5000)
    checkpoints = {"ADMIN": admin.checkpoints[20], "TRANSFORMER": transformer}
    checkpoints["TORN"] = folder / "TORN"
    return SimpleNamespace(folder=folder, checkpoints=checkpoints)


@pytest.fixture(scope="module")
def outcomes(places, corpus, lab, in_background, tmp_path_factory):
    """Each mistake in a folder that holds a checkpoint: the run, and the folder after it."""

    def start(case):
        data, kept, name, extra = corpus, "ADMIN", "checkpoint1.pt", []
        for word in CASES[case][0]:
            if word.startswith("DATA="):
                data = places.folder / word[len("DATA=") :]
            elif word.startswith("LAST="):
                kept, name = word[len("LAST=") :], "checkpoint_last.pt"
            else:
                extra.append(places.folder / word if word.isupper() else word)
        save_dir = tmp_path_factory.mktemp("kept")
        before = places.checkpoints[kept].read_bytes()
        (save_dir / name).write_bytes(before)
        command = lab.train_command(data, save_dir, "--max-update", "60", *extra)
        run = lab.run(command, cwd=places.folder)
        untouched = (save_dir / name).read_bytes() == before
        return run, untouched and len(list(save_dir.iterdir())) == 1

    return in_background(start)


def test_mistake_is_one_clear_line_and_nothing_is_lost(outcomes, case):
    run, untouched = outcomes[case].result()
    assert run.code != 0
    assert run.last_line.startswith("fairseq_admin: "), run.output[-3000:]
    assert run.output.count("fairseq_admin: ") == 1
    assert "Traceback" not in run.output, run.output[-3000:]
    for words in CASES[case][1]:
        assert words in run.last_line
    assert untouched, "the folder of checkpoints is not what it was"
