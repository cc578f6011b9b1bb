"""`fairseq-admin analyze`: real command lines on real checkpoints; mistakes in one line."""

import json
import shutil
import sys
from functools import partial

import pytest
import torch

from fairseq_admin.methods import METHODS
from fairseq_admin_cli import main as cli

PNG = b"\x89PNG"
TINY = ["--encoder-layers", "2", "--decoder-layers", "3", "--encoder-embed-dim", "16"]
TINY += ["--encoder-ffn-embed-dim", "32", "--encoder-attention-heads", "2"]
TINY += ["--decoder-attention-heads", "2"]


@pytest.fixture
def analyze(tmp_path, monkeypatch, capsys):
    """Run an analysis in this process; its result."""
    monkeypatch.setattr(sys, "argv", ["fairseq-admin"])  # training_config writes there
    monkeypatch.chdir(tmp_path)

    def run(analysis, *arguments):
        cli.main(["analyze", analysis, *map(str, arguments)])
        more = ["_encoder"] * (analysis == "output-change")
        pictures = [f"{analysis}{end}.png" for end in ("", *more)]
        told = " and ".join([f"{analysis}.json", *pictures])
        assert capsys.readouterr().out == f"wrote {told}\n"
        assert all((tmp_path / name).read_bytes().startswith(PNG) for name in pictures)
        text = (tmp_path / f"{analysis}.json").read_text()
        return json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are none of JSON

    return run


def test_in_its_own_process(lab, admin, corpus, tmp_path):
    """No word of warning, both files, beside the training's profile."""
    checkpoints = [admin.checkpoints[n] for n in (20, 120)]
    command = [lab.real / "fairseq-admin", "analyze", "omega", *checkpoints, "--output", "o.x"]
    run = lab.run(command, cwd=tmp_path).ok()
    assert run.output.splitlines()[-1] == "wrote o.x.json and o.x.png"
    assert "Warning" not in run.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.x.json", "o.x.png"]
    first, *trained = json.loads((tmp_path / "o.x.json").read_text())["models"]
    profile = lab.profile_of(lab.load(checkpoints[0]))
    assert first["label"].endswith("at 0") and [m["updates"] for m in trained] == [20, 120]
    for stack, found in profile.stacks.items():
        means = [row["mean"] for row in first["stacks"][stack]]
        assert means == pytest.approx([s.omega for s in found.sublayers], rel=1e-5)
        assert any(row["std"] > 0 for row in trained[-1]["stacks"][stack])
    omega = lab.load(checkpoints[1])["model"]["decoder.layers.2.ffn_residual.omega"]
    row = trained[-1]["stacks"]["decoder"][-1]
    assert row["mean"] == pytest.approx(omega.mean().item(), rel=1e-4)
    assert row["std"] == pytest.approx(omega.std(unbiased=False).item(), rel=1e-4)


def test_updates_between_checkpoints(analyze, admin, corpus, lab):
    paths = [admin.checkpoints[n] for n in (20, 60, 120)]
    models = analyze("updates", *paths, "--data", corpus, "--seeds", 2)["models"]
    assert [model["updates"] for model in models] == [20, 20, 60, 60]
    states = [lab.load(path)["model"] for path in paths]
    for model, before, after in ((models[0], *states[:2]), (models[2], *states[1:])):
        moved = {
            name: (after[f"{layer}.{name.split('.')[-1]}.weight"] - before[key]).norm().item()
            for name in model["norms"]["update"]
            for layer in [name.rsplit(".", 1)[0].replace(".ffn", "")]
            for key in [f"{layer}.{name.split('.')[-1]}.weight"]
        }
        largest = max(moved.values())
        expected = {name: norm / largest for name, norm in moved.items()}
        assert model["norms"]["update"] == pytest.approx(expected, rel=1e-4)
        assert len(expected) == 3 * (4 + 2) + 3 * (4 + 4 + 2)
        assert max(model["norms"]["gradient"].values()) == 1


def test_checkpoints_beside_architectures(analyze, admin, transformer, corpus):
    """Of one vocabulary; fairseq's own checkpoint, its architectures by name, and ours."""
    models = [transformer, admin.folder / "checkpoint_last.pt", "pre-ln", "transformer_iwslt_de_en"]
    found = analyze("norms", *models, "--data", corpus, "--split", "test", *TINY)["models"]
    assert [m["method"] for m in found] == ["post-ln", "admin", "pre-ln", "post-ln"]
    assert [m["layers"] for m in found] == ["3-3", "3-3", "2-3", "2-3"]
    assert [m["updates"] for m in found] == [4, 120, None, None]
    assert [len(m["stacks"]["decoder"]) for m in found] == [10] * 4


@pytest.mark.slow
def test_random_tokens_seeds_and_depths(analyze):
    names = ["pre-ln", "admin"]
    found = analyze(
        "output-change", *names, "--depths", 1, 2, 3, "--seeds", 2, "--tokens", 60, *TINY[4:]
    )
    assert len(found["models"]) == 2 * 3 * 2
    assert {model["seed"] for model in found["models"]} == {1, 2}
    assert {(fit["stack"], fit["step"], fit["label"]) for fit in found["fits"]} == {
        (stack, step, name)
        for stack in ("encoder", "decoder")
        for step in ("random", "gradient")
        for name in names
    }
    again = analyze(
        "output-change", "admin", "--depths", 1, "--seeds", 2, "--tokens", 60, *TINY[4:]
    )
    first = [m for m in found["models"] if m["label"] == "admin" and m["layers"] == "1-1"]
    assert again["models"] == first  # to the last digit


def test_models_of_one_folder_name_have_labels_of_their_own(analyze, transformer, admin, tmp_path):
    """Else a figure would take them for seeds of one model."""
    paths = [tmp_path / name / "checkpoints" / "checkpoint_last.pt" for name in "ab"]
    for path, source in zip(paths, (transformer, admin.folder / "checkpoint_last.pt")):
        path.parent.mkdir(parents=True)
        shutil.copy(source, path)
    found = analyze("norms", *paths)["models"]
    assert [(m["label"], m["method"]) for m in found] == [
        ("a/checkpoints/checkpoint_last", "post-ln"),
        ("b/checkpoints/checkpoint_last", "admin"),
    ]
    shutil.copy(paths[1], paths[0])
    labels = [m["label"] for m in analyze("omega", *paths)["models"] if m["updates"] == 0]
    assert labels == ["a/checkpoints at 0", "b/checkpoints at 0"]
    file = shutil.copy(paths[0], tmp_path / "admin.pt")
    found = analyze("norms", "admin", file, "--seeds", 1, "--tokens", 60, *TINY)["models"]
    assert [m["label"] for m in found] == ["admin", "admin.pt"]


def test_sizes_instead_of_the_default_depths(analyze):
    found = analyze("output-change", "post-ln", "--seeds", 1, "--tokens", 60, *TINY)["models"]
    assert [m["layers"] for m in found] == ["2-3"]


def test_the_direction_of_the_model(analyze, admin, corpus, lab, tmp_path):
    """A model of en-de reads the English side of de-en data."""
    state = lab.load(admin.folder / "checkpoint_last.pt")
    norms = {}
    for source, target in (("de", "en"), ("en", "de")):
        state["cfg"]["task"].update(source_lang=source, target_lang=target)
        torch.save(state, tmp_path / "model.pt")
        rows = analyze("norms", "model.pt", "--data", corpus)["models"][0]["stacks"]["encoder"]
        norms[source] = [row["norm2"] for row in rows]
    assert norms["de"] != norms["en"]


def test_an_architecture_of_your_own(analyze, tmp_path):
    (tmp_path / "analyze_plugin").mkdir()
    (tmp_path / "analyze_plugin" / "__init__.py").write_text(
        "from fairseq.models import register_model_architecture\n"
        "@register_model_architecture('transformer', 'transformer_of_analyze_plugin')\n"
        "def sizes(args):\n"
        "    from fairseq.models.transformer import base_architecture\n"
        "    args.encoder_layers = args.decoder_layers = 1\n"
        "    base_architecture(args)\n"
    )
    options = ["--user-dir", tmp_path / "analyze_plugin", *TINY[4:]]
    (found,) = analyze("norms", "transformer_of_analyze_plugin", *options)["models"]
    assert (found["method"], found["layers"]) == ("post-ln", "1-1")


def test_parameter_init(analyze):
    """paper: FFN weights with larger branch variance than nn.Linear's default."""
    names, variances = ("transformer", "post-ln"), {}
    for init in ("paper", "fairseq"):
        for model in analyze("dependency", *names, "--parameter-init", init, *TINY)["models"]:
            _, branches = model["stacks"]["encoder"]["variances"]
            variances[init, model["label"]] = branches[1]  # of the first FFN
    for name in names:
        assert variances["paper", name] > 3 * variances["fairseq", name]
    default = analyze("dependency", *names, *TINY)["models"]
    (admin,) = analyze("dependency", "admin", *TINY)["models"]
    assert admin["stacks"]["encoder"]["scales"][-1] > 1  # it is profiled
    found = [model["stacks"]["encoder"]["variances"][1][1] for model in default]
    expected = [variances["fairseq", "transformer"], *(variances["paper", x] for x in names[1:])]
    assert found == pytest.approx(expected, rel=1e-5)


ANALYSES = [
    pytest.param("output-change", marks=pytest.mark.slow),
    "dependency",
    "gradients",
    "norms",
]


@pytest.mark.parametrize("analysis", ANALYSES)
def test_methods_beside_each_other(analyze, analysis):
    """New ReZero models, whose branches are 0, among them; numbers without NaN."""
    names = ["deepnorm", "rezero", "keel", "post-ln/pre-ln"]
    found = analyze(analysis, *names, "--seeds", 1, "--tokens", 60, *TINY)
    assert [model["method"] for model in found["models"]] == names
    assert [model["label"] for model in found["models"]] == names
    for fit in found.get("fits", []):
        assert fit["label"] in names and fit["label"] != "rezero"
        assert -3 < fit["exponent"] < 3 and fit["N"]["r2"] <= 1


def test_methods_of_one_initialization(analyze, monkeypatch):
    """Methods draw the same weights; but DeepNorm its own, whatever --parameter-init says."""
    from fairseq_admin.analysis import norms

    drawn = {}

    def keep(model, *_):
        drawn[model.cfg.residual] = model.encoder.layers[0].fc1.weight.detach().clone()
        return norms.hidden_norms(model, *_)

    monkeypatch.setattr(norms, "measure", partial(norms.measure_models, "norms", keep))
    analyze("norms", "post-ln", "keel", "deepnorm", "--parameter-init", "paper", *TINY)
    small = drawn.pop("deepnorm")
    first, *others = drawn.values()
    assert len(others) == 1 and all(torch.equal(first, weight) for weight in others)
    expected = 0.87 * (2**4 * 3) ** (-1 / 16)  # DeepNorm's beta of 2-3 layers
    assert small.std().item() / first.std().item() == pytest.approx(expected, rel=0.1)


@pytest.fixture(scope="module")
def broken(admin, corpus, lab, tmp_path_factory):
    """Checkpoints and data that cannot be looked at."""
    folder = tmp_path_factory.mktemp("broken")
    state = lab.load(admin.folder / "checkpoint_last.pt")
    state["model"]["decoder.layers.1.fc1.weight"][0, 0] = float("nan")
    torch.save(state, folder / "nan.pt")
    state = lab.load(admin.folder / "checkpoint_last.pt")
    torch.save({**state, "task_state": {"profile": {"a": 1}}}, folder / "profile.pt")
    torch.save({**state, "optimizer_history": []}, folder / "old.pt")
    torch.save(state, folder / "last.pt")
    first = lab.load(admin.checkpoints[20])
    first["task_state"]["text"]["dictionaries"] = ["of", "others"]
    torch.save(first, folder / "first.pt")
    del state["model"]["decoder.layers.1.fc1.weight"]
    torch.save(state, folder / "cut.pt")
    shutil.copytree(corpus, folder / "empty")
    for path in (folder / "empty").glob("valid.*.bin"):
        path.write_bytes(b"")
    shutil.copytree(corpus, folder / "swapped")
    for path in (folder / "swapped").glob("dict.*.txt"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[::-1]))
    shutil.copytree(corpus, folder / "other")
    for path in (folder / "other").glob("dict.*.txt"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    return folder


MISTAKES = {
    "no such model": (["norms", "nosuch.pt"], "no such checkpoint: nosuch.pt"),
    "no such architecture": (["norms", "postln"], f"give {', '.join(METHODS)} or a name"),
    "three methods": (["norms", "admin/keel/admin"], "or two of them as ENCODER/DECODER"),
    "a method beside a name": (
        ["norms", "keel", "--residual", "admin"],
        "keel is a residual method: give transformer_admin and --residual",
    ),
    "a folder": (["norms", "{admin}"], "is a folder: give a checkpoint in it"),
    "a model after an option": (["norms", "admin", *TINY, "pre-ln"], "unrecognized arguments"),
    "no such option": (["norms", "admin", "--encoder-layer", "2"], "arguments: --encoder-layer"),
    "no number": (["norms", "admin", "--encoder-layers", "x"], "invalid"),
    "sizes that do not fit": (["norms", "post-ln", *TINY[:-1], "3"], "16 is not divisible by --"),
    "an arch beside a name": (["norms", "admin", "--arch", "transformer"], "instead of --arch"),
    "norms beside a name": (["norms", "post-ln", "--encoder-normalize-before"], "post-ln says wh"),
    "depths twice": (["gradients", "admin", "--depths", "2", *TINY], "give either --depths"),
    "no effect": (["norms", "admin", "--omega-file", "x", *TINY], "--omega-file has no effect"),
    "no plugin": (["norms", "admin", "--user-dir", "nosuch"], "no such folder: nosuch"),
    "split of nothing": (["norms", "admin", "--split", "test"], "--split test is of --data"),
    "twice": (["norms", "{last}", "{last}"], "a model is given twice"),
    "twice, by two names": (
        ["norms", "{last}", "{admin}/./checkpoint_last.pt"],
        "a model is given twice",
    ),
    "a folder for output": (["norms", "{last}", "--output", "./"], "./ is a folder: give"),
    "other inputs": (["norms", "levenshtein_transformer", *TINY], "reads no source and target"),
    "no encoder-decoder": (
        ["norms", "transformer_lm"],
        "is no encoder-decoder that can be built here",
    ),
    "cut short": (["norms", "{broken}/cut.pt"], "holds no encoder-decoder that fairseq can"),
    "foreign profile": (["omega", "{broken}/profile.pt"], "the profile that profile keeps is dam"),
    "depths of a checkpoint": (["gradients", "{last}", "--depths", "2"], "--depths is for arch"),
    "no updates": (["updates", "{broken}/old.pt", "{last}"], "old does not say after how many"),
    "no omega": (["omega", "{transformer}"], "no omega there: give models of the residual method"),
    "other parts": (["dependency", "lstm"], "has no encoder layers to look at"),
    "NaN": (["norms", "{broken}/nan.pt"], "NaN or infinite weights (decoder.layers.1.fc1.weight)"),
    "empty split": (["norms", "{last}", "--data", "{broken}/empty"], "is cut off"),
    "no split": (["norms", "{last}", "--data", "{corpus}", "--split", "x"], "no split x in"),
    "no data": (["norms", "{last}", "--data", "nosuch"], "no such data folder"),
    "other data": (["norms", "{last}", "--data", "{broken}/other"], "give the model's own data"),
    "as many types": (
        ["norms", "{last}", "--data", "{broken}/swapped"],
        "was trained with other dictionaries than",
    ),
    "another training": (
        ["updates", "{broken}/first.pt", "{broken}/last.pt"],
        "last was trained with other dictionaries than first: updates lie between",
    ),
    "no seed": (["norms", "post-ln", "--seeds", "0"], "--seeds 0: give 1 or more"),
    "no tokens": (["norms", "post-ln", "--tokens", "0", *TINY], "--tokens 0: give 1 or more"),
    "many tokens": (["norms", "post-ln", "--tokens", "9000", *TINY], "fewer than 8192"),
    "no depth": (["gradients", "post-ln", "--depths", "0"], "--depths: give 1 or more"),
    "one checkpoint": (["updates", "{last}"], "give two or more checkpoints of one folder"),
    "no checkpoint": (["updates", "admin", *TINY], "admin is no checkpoint"),
    "backwards": (["updates", "{last}", "{first}"], "give checkpoints in the order"),
    "options of a checkpoint": (["norms", "{last}", *TINY], "--encoder-layers is for arch"),
    "no folder": (["norms", "{last}", "--output", "no/such/x"], "no such folder: no/such"),
    "options of curves": (["curves", "{admin}", "--tokens", "3"], "unknown option: --tokens 3"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(analyze, broken, admin, transformer, corpus, tmp_path, mistake):
    arguments, told = MISTAKES[mistake]
    places = {"transformer": transformer, "broken": broken, "corpus": corpus}
    places.update(admin=admin.folder, last=admin.folder / "checkpoint_last.pt")
    places["first"] = admin.checkpoints[20]
    with pytest.raises(SystemExit) as error:
        analyze(*(argument.format(**places) for argument in arguments))
    said = str(error.value)
    assert said.startswith("fairseq_admin: ") and told in said and "\n" not in said
    assert list(tmp_path.iterdir()) == []
