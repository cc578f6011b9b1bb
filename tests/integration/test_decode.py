"""Decoding in fresh processes, from another folder, with nothing but data and a checkpoint."""

import math
import shutil
from types import SimpleNamespace

import pytest
from fairseq import utils

EPOCHS = 7  # of 8 updates

# Without the multiple of 1, fairseq 0.12.3 leaves out the last sentences of a test set.
EVERY_SENTENCE = ["--required-batch-size-multiple", "1"]

OWN = ["--task", "translation_admin"]  # else generate and interactive take `translation`
CASES = {
    "ensemble": ["fairseq-generate", "CORPUS", "--path", "FIRST:LAST", *OWN],
    "validate": ["fairseq-validate", "CORPUS", "--path", "LAST", "--max-tokens", "500", *OWN],
    "interactive": ["fairseq-interactive", "CORPUS", "--path", "LAST", "-s", "de", "-t", "en"],
    "transformer": ["fairseq-generate", "CORPUS", "--path", "TRANSFORMER"],
    "trained here, 1": ["fairseq-generate", "CORPUS", "--path", "HERE", "--batch-size", "1"],
    "trained here, 4": ["fairseq-generate", "CORPUS", "--path", "HERE", "--batch-size", "4"],
}


@pytest.fixture(scope="module")
def trained_here(corpus, lab, tmp_path_factory):
    """A model trained in this process, which stays in memory, and its checkpoint."""
    built = lab.build_trainer(corpus)
    trainer = built.trainer
    trainer.begin_epoch(1)
    losses = []
    for epoch in range(1, EPOCHS + 1):
        batches = trainer.get_train_iterator(epoch).next_epoch_itr(shuffle=True)
        losses += [float(trainer.train_step([batch])["loss"]) for batch in batches]
    path = tmp_path_factory.mktemp("here") / "checkpoint.pt"
    trainer.consolidate_optimizer()
    trainer.save_checkpoint(str(path), {"train_iterator": {}})
    assert losses[-1] < losses[0]
    return SimpleNamespace(**vars(built), path=path)


@pytest.fixture(scope="module")
def decoded(admin, transformer, trained_here, corpus, lab, in_background, tmp_path_factory):
    words = {
        "CORPUS": str(corpus),
        "FIRST": str(admin.checkpoints[20]),
        "LAST": str(admin.checkpoints[120]),
        "TRANSFORMER": str(transformer),
        "HERE": str(trained_here.path),
    }
    words["FIRST:LAST"] = words["FIRST"] + ":" + words["LAST"]
    text = (corpus.parent / "test.de").read_text()

    def start(case):
        program, *rest = [words.get(word, word) for word in CASES[case]]
        command = [lab.bin / program, rest[0], "--user-dir", lab.plugin, *rest[1:], "--cpu"]
        command += EVERY_SENTENCE
        folder = tmp_path_factory.mktemp("elsewhere")
        run = lab.run(command, cwd=folder, stdin=text if program == "fairseq-interactive" else "")
        assert not list(folder.iterdir())
        return run.ok()

    return in_background(start)


def hypotheses(output):
    """Score and text of each sentence's best hypothesis, by its number."""
    rows = [line[2:].split("\t") for line in output.splitlines() if line.startswith("H-")]
    return {int(number): (float(score), text) for number, score, text in rows}


def test_every_command_does_its_work(decoded, admin, case):
    run = decoded[case].result()
    assert "branch variance" not in run.output, "a decoding process has nothing to profile"
    if case == "validate":
        valid = float(admin.run.records("valid")[-1]["valid_loss"])
        line = next(x for x in run.output.splitlines() if "| valid |" in x and "loss" in x)
        assert float(line.split("| loss ")[1].split()[0]) == pytest.approx(valid, abs=0.2)
    else:
        found = hypotheses(run.output)
        assert len(found) == 30
        assert all(math.isfinite(score) for score, _ in found.values())


def test_a_checkpoint_of_other_text_is_not_decoded(admin, corpus, lab, tmp_path):
    """By `translation_admin`: with as many symbols in another order, or the other way round."""
    other = shutil.copytree(corpus, tmp_path / "other")
    for lang in ("de", "en"):
        lines = (other / f"dict.{lang}.txt").read_text().splitlines()
        (other / f"dict.{lang}.txt").write_text("".join(f"{line}\n" for line in lines[::-1]))
    command = ["--user-dir", lab.plugin, "--path", admin.checkpoints[120], "--cpu", *OWN]
    told = {
        "the checkpoint was trained with other dictionaries": [other],
        "the checkpoint translates from de to en, not from en to de": [
            corpus,
            "-s",
            "en",
            "-t",
            "de",
        ],
    }
    for message, words in told.items():
        run = lab.run([lab.bin / "fairseq-generate", *words, *command], cwd=tmp_path)
        assert run.code == 1 and message in run.last_line


@pytest.mark.parametrize("case", ["trained here, 1", "trained here, 4"])
def test_a_fresh_process_decodes_like_the_one_that_trained(decoded, trained_here, case):
    """Left padding at batch size 4, none at 1."""
    task, model = trained_here.task, trained_here.model
    task.load_dataset("test")
    args = trained_here.cfg.generation
    generator = task.build_generator([model.eval()], args)
    batches = task.get_batch_iterator(
        task.dataset("test"), max_tokens=12000, max_sentences=int(case[-1])
    ).next_epoch_itr(shuffle=False)
    expected = {}
    for batch in batches:
        hypos = task.inference_step(generator, [model], utils.move_to_cpu(batch))
        for number, (best, *_) in zip(batch["id"].tolist(), hypos):
            text = task.target_dictionary.string(best["tokens"])
            expected[number] = (float(best["score"]) / math.log(2), text)
    found = hypotheses(decoded[case].result().output)
    assert len({text for _, text in expected.values()}) > 5, "the model says one thing only"
    assert {n: text for n, (_, text) in found.items()} == {
        n: text for n, (_, text) in expected.items()
    }
    for number, (score, _) in expected.items():
        assert found[number][0] == pytest.approx(score, abs=1e-6), number
