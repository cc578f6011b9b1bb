"""Tasks that profile, beside `translation_admin`: multilingual, and a person's own."""

import re
import shutil
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
PAIRS = ["--langs", "de,en,fr", "--lang-pairs", "de-en,fr-en", "--encoder-langtok", "src"]
SAMPLED = ["--sampling-method", "temperature", "--sampling-temperature", "2"]
MULTI = "translation_multi_simple_epoch_admin"


@pytest.fixture(scope="module")
def three(corpus, tmp_path_factory):
    """The corpus, and as "fr-en" a tenth of it."""
    folder = tmp_path_factory.mktemp("three") / "bin"
    shutil.copytree(corpus, folder)
    shutil.copy(folder / "dict.de.txt", folder / "dict.fr.txt")
    for path in corpus.glob("*.de-en.*"):
        split, _, lang, kind = path.name.split(".")
        # the test set has 30 pairs where the training set has 300
        small = corpus / f"test.de-en.{lang}.{kind}" if split == "train" else path
        shutil.copy(small, folder / f"{split}.fr-en.{lang.replace('de', 'fr')}.{kind}")
    return folder


def multi(lab, data, folder, *extra, task=MULTI):
    command = lab.train_command(data, folder, *PAIRS, *SAMPLED, *extra, task=task)
    return lab.run(command)


def test_multilingual_training_profiles_resumes_and_decodes(three, lab, tmp_path):
    """The profile is drawn over all pairs as they are sampled: by temperature 2 a tenth of the
    sentences is a quarter of the draw, whose size says from what it was drawn."""
    straight, folder = tmp_path / "straight", tmp_path / "resumed"
    straight.mkdir(), folder.mkdir()
    whole = multi(lab, three, straight, "--max-update", "8").ok()
    first = multi(lab, three, folder, "--max-update", "4").ok()
    state = lab.load(folder / "checkpoint_last.pt")
    profile = lab.profile_of(state)
    assert first.table() == profile.table() == whole.table()
    assert profile.meta["sentences"] > 100 and profile.meta["source_tokens"] <= 4096
    shown = [lab.bin / "fairseq-admin", "profile", three, "--task", MULTI, *PAIRS, *SAMPLED]
    shown += ["--arch", "transformer_admin", *lab.model_options, "--output", folder / "p.json"]
    assert first.table() in lab.run(shown, cwd=folder).ok().output
    rest = multi(lab, three, folder, "--max-update", "8").ok()
    assert rest.table() is None and set(rest.losses()) == {5, 6, 7, 8}
    assert {**first.losses(), **rest.losses()} == whole.losses()
    ends = [lab.load(f / "checkpoint_last.pt") for f in (folder, straight)]
    assert lab.same_tensors(*(end["model"] for end in ends))
    assert lab.profile_of(ends[0]) == profile

    command = [lab.bin / "fairseq-generate", three, "--user-dir", lab.plugin, "--task", MULTI]
    command += [*PAIRS, "--source-lang", "fr", "--target-lang", "en", "--cpu", "--max-len-b", "20"]
    command += ["--required-batch-size-multiple", "1", "--path", folder / "checkpoint_last.pt"]
    assert lab.run(command, cwd=tmp_path).ok().output.count("\nH-") == 30


def test_the_profile_changes_no_batch_of_a_multilingual_training(three, lab, tmp_path):
    batches = []
    for task in (MULTI, "translation_multi_simple_epoch"):
        run = multi(lab, three, tmp_path / task, "--max-update", "8", "--no-save", task=task)
        rows = run.ok().records("train_inner")
        batches.append([(row["wpb"], row["bsz"]) for row in rows])
    assert batches[0] == batches[1] and len(set(batches[0])) > 2


def test_pairs_are_profiled_in_the_proportion_in_which_they_are_sampled(three, lab, tmp_path):
    """By an own draw of the same task: ids of the batch lie in either pair's part."""
    import numpy as np
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    shares = {}
    for temperature in ("1", "100"):
        sampled = ["--sampling-method", "temperature", "--sampling-temperature", temperature]
        words = lab.train_command(three, tmp_path, *PAIRS, *sampled, task=MULTI)[1:]
        args = options.parse_args_and_arch(options.get_training_parser(), list(map(str, words)))
        cfg = convert_namespace_to_omegaconf(args)
        task = tasks.setup_task(cfg.task)
        model = task.build_model(cfg.model, from_checkpoint=True)
        task.options.profile_tokens = 1500
        german = task.source_dictionary.index("__de__")
        sources = [x["net_input"]["src_tokens"] for x in task.profile_batches(model, 1)]
        shares[temperature] = np.mean([any(s == german) for batch in sources for s in batch])
    assert shares["1"] == pytest.approx(10 / 11, abs=0.08)
    assert shares["100"] == pytest.approx(1 / 2, abs=0.13)


def test_the_task_of_the_page_trains(corpus, lab, tmp_path):
    """The page's own code, as a person would put it into a folder for --user-dir."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    statements = [line for line in code.splitlines() if line and not line.startswith("from ")]
    assert len(statements) <= 5 + 1  # the decorator is a line of its own
    own = tmp_path / "my_plugin"
    own.mkdir()
    (own / "__init__.py").write_text(code)
    name = re.search(r'@register_task\("(\w+)"', code).group(1)
    command = lab.train_command(corpus, tmp_path, "--max-update", "4", task=name)
    command[command.index("--user-dir") + 1] = own
    env = {"PYTHONPATH": str(lab.plugin.parent)}
    run = lab.run(command, cwd=tmp_path, env=env).ok()
    assert set(run.losses()) == {1, 2, 3, 4}
    assert run.table() == lab.profile_of(lab.load(tmp_path / "checkpoint_last.pt")).table()
