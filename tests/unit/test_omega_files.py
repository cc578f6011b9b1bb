"""Omega files: our JSON, Transformer-Clinic's and deepnmt's formats, and files that are none."""

import json
import logging
import re

import pytest

from fairseq_admin.errors import UserError
from fairseq_admin.methods import STACKS
from fairseq_admin.omega_file import Profile, read_profile
from fairseq_admin.profiling import named_junctions, profile_model
from tests.helpers import PAD, TINY, build, make_task, model_config, net_input

OMEGAS = [1.0, 1.25, 1.5, 1.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]  # of a 2-2 model


def omega_file(tmp_path, content) -> str:
    """A file of a text, of bytes or of JSON data."""
    path = tmp_path / "omegas"
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def lines(omegas) -> str:
    """deepnmt's format: one omega a line."""
    return "".join(f"{omega}\n" for omega in omegas)


def omegas_of(model):
    return [j.omega[0].item() for js in named_junctions(model).values() for j in js.values()]


def names_of(model):
    """The sublayers of *model* by stack."""
    return {stack: list(junctions) for stack, junctions in named_junctions(model).items()}


def our_json(omegas=tuple(OMEGAS), input_var=1.5, **meta):
    """A profile of a 2-2 model as JSON data."""
    kinds = {"encoder": ("self_attn", "ffn"), "decoder": ("self_attn", "encoder_attn", "ffn")}
    rest = iter(omegas)
    stacks = {
        stack: {
            "input_var": input_var,
            "sublayers": [
                {"name": f"{stack}.layers.{i}.{kind}", "omega": next(rest), "branch_var": 0.5}
                for i in range(2)
                for kind in kinds[stack]
            ],
        }
        for stack in STACKS
    }
    return {"format": "fairseq_admin profile 1", "stacks": stacks, "meta": meta}


def built_from(tmp_path, content, **given):
    """A model that the task builds with `--omega-file`."""
    task = make_task(omega_file=omega_file(tmp_path, content))
    return task.build_model(model_config("transformer_admin", **{**TINY, **given}))


def test_json_round_trip(tmp_path):
    model = build()
    profile = profile_model(model, [net_input()], PAD, 1)
    profile.meta = {"arch": "transformer_admin", "dropout": 0.1, "versions": {"torch": "2"}}
    path = tmp_path / "profile.json"
    profile.save(str(path))
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left
    got = read_profile(str(path), names_of(build()))
    assert got.stacks == profile.stacks
    assert got.meta == {**profile.meta, "omega_file": str(path)}
    assert Profile.from_dict(json.loads(path.read_text())) == profile


@pytest.mark.parametrize("residual", ["deepnorm", "pre-ln"])
def test_a_profile_of_a_method_without_omegas(tmp_path, residual):
    """It is kept and read again, and sets no omega of Admin's."""
    profile = profile_model(build(residual=residual), [net_input()], PAD, 1)
    path = tmp_path / "profile.json"
    profile.save(str(path))
    assert Profile.from_dict(json.loads(path.read_text())) == profile and profile.omegas == []
    with pytest.raises(UserError, match="holds no omega of the encoder: it is of another"):
        read_profile(str(path), names_of(build()))


@pytest.mark.parametrize("made", ["analytic", "analytic/admin"])
def test_a_profile_of_another_method_sets_no_omega_of_admins(tmp_path, made):
    profile = profile_model(build(residual=made), [net_input()], PAD, 1)
    profile.meta = {"residual": made}
    with pytest.raises(UserError, match="is a profile of Analytic.*, not of Admin") as told:
        built_from(tmp_path, profile.to_dict())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("made", [3, ["admin"], "magic"])
def test_a_profile_that_names_no_method_is_one_line(tmp_path, made):
    with pytest.raises(UserError, match="give one of admin, analytic") as told:
        built_from(tmp_path, our_json(residual=made))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("residual", ["admin/analytic", "deepnorm/admin", "admin/pre-ln"])
def test_a_profile_serves_the_model_that_it_is_of(tmp_path, residual):
    profile = profile_model(build(residual=residual), [net_input()], PAD, 1)
    profile.meta = {"residual": residual}
    model = built_from(tmp_path, profile.to_dict(), residual=residual)
    for stack, junctions in named_junctions(model).items():
        omegas = [s.omega for s in profile.stacks[stack].sublayers]
        if omegas[0] is not None:
            assert [j.omega[0].item() for j in junctions.values()] == pytest.approx(omegas)


@pytest.mark.parametrize(
    "text",
    [
        lines(OMEGAS),
        "".join(f"{i} {omega}\n" for i, omega in enumerate(OMEGAS, start=1)),
        "".join(f"{i} {omega}\n" for i, omega in zip([1, 2, 3, 4, 1, 2, 3, 4, 5, 6], OMEGAS)),
        lines(OMEGAS).replace("\n", "\r\n"),
        "\ufeff" + lines(OMEGAS),
        "\n" + lines(OMEGAS) + "\n\n",
    ],
    ids=["deepnmt", "clinic", "numbered anew", "windows", "byte order mark", "empty lines"],
)
def test_line_formats_encoder_first(tmp_path, text):
    model = built_from(tmp_path, text)
    assert omegas_of(model) == OMEGAS
    assert [j.omega[0].item() for j in named_junctions(model)["decoder"].values()] == OMEGAS[4:]


@pytest.mark.parametrize("count", [0, 9, 11, 500])
def test_wrong_count_says_both(tmp_path, count):
    with pytest.raises(UserError) as error:
        read_profile(omega_file(tmp_path, lines([1.0] * count)), names_of(build()))
    assert re.search(
        rf" has {count} sublayers, the model has 10 sublayers \(4 encoder \+ 6 decoder\)$",
        str(error.value),
    )


def test_json_of_another_split_of_the_same_count_is_refused(tmp_path):
    profile = profile_model(build(encoder_layers=2, decoder_layers=4), [net_input()], PAD, 1)
    with pytest.raises(UserError) as error:
        read_profile(omega_file(tmp_path, profile.to_dict()), names_of(build(encoder_layers=5)))
    assert "16 sublayers (4 encoder + 12 decoder)" in str(error.value)
    assert "16 sublayers (10 encoder + 6 decoder)" in str(error.value)


def changed_sublayer(**values):
    data = our_json()
    data["stacks"]["encoder"]["sublayers"][1].update(values)
    return data


BAD = {
    "broken JSON": '{"format": "fairseq_admin profile 1", "stacks": {"enc',
    "JSON of something else": {"model": "transformer"},
    "JSON without the decoder": {"stacks": {"encoder": {}}, "meta": {}},
    "JSON without meta": {"stacks": our_json()["stacks"]},
    "meta null": {**our_json(), "meta": None},
    "omega a word": changed_sublayer(omega="wide"),
    "omega null": changed_sublayer(omega=None),
    "variance a word": changed_sublayer(branch_var="wide"),
    "another format": {**our_json(), "format": "fairseq_admin profile 2"},
    "another sublayer": changed_sublayer(name="encoder.layers.0.encoder_attn"),
    "a JSON list": OMEGAS,
    "binary": bytes(range(256)),
    "binary that is UTF-8": bytes(range(128)),
    "a word": lines(OMEGAS).replace("2.5", "wide"),
    "lines out of order": "".join(f"{i} {omega}\n" for i, omega in enumerate(OMEGAS[::-1], 5)),
    "NaN": lines([1.0, float("nan"), *OMEGAS[2:]]),
    "infinite": lines([1.0, float("inf"), *OMEGAS[2:]]),
    "negative": lines([1.0, -1.25, *OMEGAS[2:]]),
    "zero": lines([1.0, 0.0, *OMEGAS[2:]]),
    "rounded to 0 in fp32": lines([1.0, 1e-46, *OMEGAS[2:]]),
    "numbered in part": lines(OMEGAS).replace("1.25", "2 1.25"),
    "NaN in JSON": our_json(omegas=[1.0, float("nan"), *OMEGAS[2:]]),
    "rounded to 0 in JSON": our_json(omegas=[1.0, 1e-46, *OMEGAS[2:]]),
    "negative variance": changed_sublayer(branch_var=-1),
    "variance NaN": changed_sublayer(branch_var=float("nan")),
    "input variance -1": our_json(input_var=-1.0),
    "input variance NaN": our_json(input_var=float("nan")),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_file_is_one_line(tmp_path, what):
    """The path is named, and what is wrong with it."""
    path = omega_file(tmp_path, BAD[what])
    with pytest.raises(UserError) as error:
        built_from(tmp_path, BAD[what])
    assert path in str(error.value)
    assert "\n" not in str(error.value)


TOLD = {  # line, what is wrong with it, and what stands there
    "a word": "line 8 holds no omega: 'wide'$",
    "rounded to 0 in fp32": r"line 2 holds an omega that is not between .*: '1e-46'$",
    "numbered in part": "line 2 is out of order: '2 1.25'$",
    "zero": r"line 2 holds an omega .*: '0.0'$",
    "rounded to 0 in JSON": r"line \d+ holds an omega .*\(1e-46\): '\"encoder.layers.0.ffn",
    "negative variance": r"line \d+ has branch_var -1.0, .*: '\"encoder.layers.0.ffn",
    "input variance NaN": r"line \d+ has input_var nan, .*: '\"encoder\"",
    "another sublayer": r"line \d+ has a sublayer encoder.layers.0.encoder_attn where the model",
}


@pytest.mark.parametrize("what", TOLD)
def test_the_line_is_told(tmp_path, what):
    content = BAD[what]
    if not isinstance(content, str):
        content = json.dumps(content, indent=1)
    with pytest.raises(UserError, match=TOLD[what]) as error:
        read_profile(omega_file(tmp_path, content), names_of(build()))
    number = int(re.search(r"line (\d+) ", str(error.value))[1])
    shown = str(error.value).partition(": '")[2][:-1]
    assert shown in content.splitlines()[number - 1]


def test_numbering_of_other_stacks_is_refused(tmp_path):
    """6 + 4 lines for a model of 4 + 6 sublayers: as many, and each would be another's."""
    text = "".join(f"{i} {o}\n" for i, o in zip([1, 2, 3, 4, 5, 6, 1, 2, 3, 4], OMEGAS))
    with pytest.raises(UserError, match="line 7 begins a stack, but the model has .*: '1 2.0'"):
        read_profile(omega_file(tmp_path, text), names_of(build()))
    text = "".join(f"{i} {o}\n" for i, o in zip([1, 2, 1, 2, 1, 2, 3, 4, 5, 6], OMEGAS))
    with pytest.raises(UserError, match="line 3 begins a stack, but the model has .*: '1 1.5'"):
        read_profile(omega_file(tmp_path, text), names_of(build()))


@pytest.mark.parametrize("make", [lambda p: p / "none", lambda p: p], ids=["missing", "a folder"])
def test_file_that_cannot_be_read(tmp_path, make):
    with pytest.raises(UserError, match="cannot read the omega file") as error:
        read_profile(str(make(tmp_path)), names_of(build()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "option, made_with, now",
    [
        ("dropout", 0.1, {"dropout": 0.3}),
        ("encoder_embed_dim", 512, {"encoder_embed_dim": 16}),
        ("parameter_init", "paper", {"parameter_init": "fairseq"}),
        ("activation_fn", "relu", {"activation_fn": "gelu"}),
    ],
)
def test_profile_of_another_model_warns_and_is_used(tmp_path, caplog, option, made_with, now):
    with caplog.at_level(logging.WARNING):
        model = built_from(tmp_path, our_json(**{option: made_with}), **now)
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("fairseq_admin")]
    assert f"{option} {made_with}," in warning
    assert f"this model has {now[option]};" in warning
    assert omegas_of(model) == OMEGAS


def test_profile_of_the_same_model_does_not_warn(tmp_path, caplog):
    same = {"dropout": 0.0, "parameter_init": "paper", "encoder_embed_dim": 16}
    with caplog.at_level(logging.WARNING):
        built_from(tmp_path, our_json(**same))
    assert [r for r in caplog.records if r.name.startswith("fairseq_admin")] == []


@pytest.mark.parametrize("learned", [False, True])
def test_first_omega_of_a_file(tmp_path, caplog, learned):
    """Other than 1 it is kept at 1, with a warning, unless it is learned."""
    with caplog.at_level(logging.WARNING):
        model = built_from(tmp_path, lines([1.5, *OMEGAS[1:]]), learn_first_omega=learned)
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("fairseq_admin")]
    assert omegas_of(model) == [1.5 if learned else 1.0, *OMEGAS[1:]]
    assert len(messages) == (0 if learned else 1)
    if not learned:
        assert "encoder.layers.0.self_attn omega 1.5; it is kept at 1" in messages[0]


def test_omegas_of_a_file_are_kept_in_the_task_state(tmp_path):
    """Hence in every checkpoint."""
    task = make_task(omega_file=omega_file(tmp_path, lines(OMEGAS)))
    task.build_model(model_config("transformer_admin", **TINY))
    kept = Profile.from_dict(task.state_dict()["profile"])
    assert kept.omegas == OMEGAS
    assert kept.meta["omega_file"] == str(tmp_path / "omegas")
