"""A user's mistake ends with one clear line, and nothing is lost."""

import shutil
from types import SimpleNamespace

import pytest

# arguments of fairseq-train, and words that the line must hold: what is wrong and what to do;
# one of each place where it comes up: unit tests have the others
CASES = {
    "empty training set": (["DATA=EMPTY"], ["train.de-en", "holds no sentence", "EMPTY"]),
    "no dictionary, languages not given": (["DATA=NODICT"], ["dict.en.txt", "preprocess"]),
    "another depth": (
        ["LAST=ADMIN", "--encoder-layers", "4"],
        ["another depth", "3-3", "4-3", "--save-dir"],
    ),
    "another model": (
        ["LAST=TRANSFORMER"],
        ["method Post-LN, the model of Admin", "--residual post-ln"],
    ),
    "other keys, by another task": (
        ["LAST=ADMIN", "--layernorm-embedding", "--task", "translation"],
        ["the checkpoint has no encoder.layernorm_embedding.weight: give the options"],
    ),
    "bf16": (["--bf16"], ["--bf16", "fairseq-hydra-train", "common.bf16=true"]),
}


@pytest.fixture(scope="module")
def places(admin, transformer, corpus, lab, tmp_path_factory):
    """Broken data folders, by the words that stand for them in CASES."""
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
    checkpoints = {"ADMIN": admin.checkpoints[20], "TRANSFORMER": transformer}
    return SimpleNamespace(folder=folder, checkpoints=checkpoints)


@pytest.fixture(scope="module")
def outcomes(places, corpus, lab, in_background, tmp_path_factory):
    """Each mistake in a folder that holds a checkpoint: the run, and the folder after it."""

    def start(case):
        data, kept, name, extra = corpus, "ADMIN", "mean.pt", []
        for word in CASES[case][0]:
            if word.startswith("DATA="):
                data = places.folder / word[len("DATA=") :]
            elif word.startswith("LAST="):
                kept, name = word[len("LAST=") :], "checkpoint_last.pt"
            else:
                extra.append(word)
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
