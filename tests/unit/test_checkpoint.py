"""Checkpoints under torch's weights_only protection: what fairseq saves loads, code does not."""

import argparse
import collections
import fractions
import os
import pickle
import resource
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fairseq_admin.checkpoints.checkpoint import method, read_checkpoint, write_checkpoint
from fairseq_admin.checkpoints.facts import training_facts
from fairseq_admin.errors import UserError
from tests.damage import Attack
from tests.helpers import checkpoint_of, limited, randomized


def reloaded(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    return torch.load(path, weights_only=True)


def test_options_of_a_model_without_a_dataclass(tmp_path):
    args = argparse.Namespace(arch="transformer", lr=[1e-3], dropout=0.1, data=None)
    assert reloaded(tmp_path, {"args": args}) == {"args": args}


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.int32, np.bool_])
def test_numpy_numbers_and_arrays(tmp_path, kind):
    content = {"scalar": kind(1), "array": np.array([[0, 1], [2, 3]], dtype=kind)}
    got = reloaded(tmp_path, content)
    assert got["scalar"] == kind(1)
    assert got["scalar"].dtype == got["array"].dtype == np.dtype(kind)
    np.testing.assert_array_equal(got["array"], content["array"])


def test_omegaconf_trees(tmp_path):
    """What rank 0 sends to the other ranks at a resume."""
    tree = OmegaConf.create({"model": {"layers": 2, "name": "m"}, "lr": [0.1, 0.2], "none": None})
    assert reloaded(tmp_path, {"cfg": tree})["cfg"] == tree


def test_meters_of_the_time_before_0_9(tmp_path, monkeypatch):
    """fairseq's own, by their old name; also in checkpoints of Transformer-Clinic."""
    old = types.ModuleType("fairseq.meters")
    for name in ("AverageMeter", "TimeMeter", "StopwatchMeter"):
        meter = type(name, (), {"__module__": "fairseq.meters", "__qualname__": name})
        setattr(old, name, meter)
    monkeypatch.setitem(sys.modules, "fairseq.meters", old)
    model, cfg = randomized()
    average = old.AverageMeter()
    average.__dict__.update(val=1.5, avg=2.0, sum=4.0, count=2)
    meters = collections.OrderedDict(loss=average, wall=old.TimeMeter(), t=old.StopwatchMeter())
    state = checkpoint_of(model, cfg, extra_state={"train_meters": meters})
    torch.save(state, tmp_path / "old.pt")
    monkeypatch.delitem(sys.modules, "fairseq.meters")
    assert read_checkpoint(str(tmp_path / "old.pt"))["extra_state"]["train_meters"]["loss"].sum == 4


def of_transformer(key="encoder.layers.0.self_attn.k_proj.weight", **options):
    """A state of a `transformer` with the *options*, and a weight by its name."""
    given = {"_name": "transformer", "encoder_normalize_before": False, **options}
    return {"cfg": {"model": given}, "model": {key: 1, "encoder.layers.0.self_attn.x": 1}}


def test_only_fairseqs_own_transformer_is_post_ln_or_pre_ln():
    assert method(of_transformer()) == "post-ln"
    assert method(of_transformer(_name="transformer_wmt_en_de_big")) == "post-ln"
    assert method(of_transformer(init_type=["default"])) == "post-ln"
    before = {"encoder_normalize_before": True, "decoder_normalize_before": True}
    assert method(of_transformer(**before)) == "pre-ln"
    for name, others in {  # DeepNorm of torchscale; ResiDual, of nested options; Clinic's Admin
        "mt_base": of_transformer(_name="mt_base", deepnorm=True),
        "resi_dual": of_transformer(_name="resi_dual", encoder={"normalize_before": True}),
        "transformer": of_transformer("encoder.layers.0.attention_ratio_change"),
        "transformer_iwslt_de_en": of_transformer(
            "decoder.layers.3.rezero_weight", _name="transformer_iwslt_de_en"
        ),
        "transformer_wmt_en_de": of_transformer(  # whose constants are no weights
            _name="transformer_wmt_en_de", init_type="deepnet"
        ),
    }.items():
        assert method(others) == name


@pytest.mark.parametrize(
    "content", [argparse.ArgumentParser, os.system, eval, fractions.Fraction(1, 2)]
)
def test_only_the_classes_of_a_checkpoint_are_allowed(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint file, and what is in it."""
    path = tmp_path_factory.mktemp("whole") / "checkpoint.pt"
    state = checkpoint_of(*randomized())
    torch.save(state, path)
    return path, state


def test_a_checkpoint_comes_back(whole):
    path, state = whole
    got = read_checkpoint(str(path))
    assert got["cfg"] == state["cfg"]
    assert all(torch.equal(got["model"][key], state["model"][key]) for key in state["model"])


@pytest.mark.parametrize("kept", [0, 1, 100, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(whole, tmp_path, kept):
    content = whole[0].read_bytes()
    size = int(kept * len(content)) if isinstance(kept, float) else kept
    path = tmp_path / "cut.pt"
    path.write_bytes(content[:size])
    with pytest.raises(UserError, match="cut.pt cannot be read: it is damaged, cut short"):
        read_checkpoint(str(path))


def rezipped(source, target, change):
    """The records of *source* in *target*, each as *change*(name, bytes) gives it."""
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w") as changed:
        for info in whole.infolist():
            changed.writestr(info.filename, change(info.filename, whole.read(info)))
    return str(target)


@pytest.mark.parametrize("bytes_off", [-2000, -1, 1])
def test_a_record_of_another_size_than_its_tensor_is_refused(whole, tmp_path, bytes_off):
    def change(name, data):
        if not name.endswith("data/1"):
            return data
        return data[:bytes_off] if bytes_off < 0 else data + b"x" * bytes_off

    with pytest.raises(UserError, match="short.pt cannot be read: it is damaged"):
        read_checkpoint(rezipped(whole[0], tmp_path / "short.pt", change))


def test_a_flipped_bit_in_a_weight_is_refused(whole, tmp_path):
    """Of each record, whose checksum tells."""
    content = whole[0].read_bytes()
    with zipfile.ZipFile(whole[0]) as archive:
        records = [i for i in archive.infolist() if "/data/" in i.filename and i.file_size]
    path = tmp_path / "flipped.pt"
    for info in records[::5]:
        name, extra = struct.unpack_from("<HH", content, info.header_offset + 26)
        start = info.header_offset + 30 + name + extra + info.file_size // 2
        path.write_bytes(content[:start] + bytes([content[start] ^ 4]) + content[start + 1 :])
        with pytest.raises(UserError, match="flipped.pt cannot be read: it is damaged"):
            read_checkpoint(str(path))


def test_a_compressed_file_is_refused_before_it_takes_memory(whole, tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("bomb/data.pkl", b"N" * 4 * 10**7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="bomb.pt cannot be read: it is damaged"):
        read_checkpoint(str(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB
    with zipfile.ZipFile(whole[0]) as stored, zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as other:
        for info in stored.infolist():
            other.writestr(info.filename, stored.read(info))
    with pytest.raises(UserError, match="bomb.pt cannot be read: it is damaged"):
        read_checkpoint(str(path))


def test_a_file_that_shrinks_after_it_was_read_harms_nothing(whole, tmp_path):
    """As fairseq copies to checkpoint_last.pt. A mapped file would end the process by signal 7."""
    path = tmp_path / "last.pt"
    path.write_bytes(whole[0].read_bytes())
    weights = read_checkpoint(str(path))["model"]
    path.write_bytes(b"")
    assert all(torch.equal(weights[key], whole[1]["model"][key]) for key in weights)


def test_the_optimizers_state_is_read_where_it_is_wanted(tmp_path):
    """Tensors that it shares with others are those of the others."""
    state = checkpoint_of(*randomized())
    shared, moments = torch.ones(3), torch.arange(5.0)
    state["extra_state"] = {"ema": {"a": shared}}
    state["last_optimizer_state"] = {"state": {0: {"exp_avg": moments, "other": shared}}}
    path = str(tmp_path / "checkpoint.pt")
    torch.save(state, path)
    got = read_checkpoint(path)
    assert "last_optimizer_state" not in got and torch.equal(got["extra_state"]["ema"]["a"], shared)
    got = read_checkpoint(path, optimizer=True)["last_optimizer_state"]["state"][0]
    assert torch.equal(got["exp_avg"], moments) and torch.equal(got["other"], shared)


def test_tied_views_and_empty_tensors_come_back(tmp_path):
    state = checkpoint_of(*randomized(share_all_embeddings=True))
    table = torch.arange(12.0)
    state["model"].update(
        transposed=table.view(3, 4).t(), part=table[2:5], empty=torch.zeros(0), none=torch.ones(0)
    )
    path = str(tmp_path / "checkpoint.pt")
    for zipped in (True, False):
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        got = read_checkpoint(path)["model"]
        assert got.keys() == state["model"].keys()
        assert all(torch.equal(got[key], state["model"][key]) for key in got)
        names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
        assert got[names[0]].data_ptr() == got[names[1]].data_ptr()


KINDS = {
    "int32": lambda w: w.int(),
    "int64": lambda w: w.long(),
    "bool": lambda w: w.bool(),
    "complex64": lambda w: w.cfloat(),
    "sparse_coo": lambda w: w.to_sparse(),
    "sparse_csr": lambda w: w.to_sparse_csr(),
    "quint8": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.quint8),
    "meta": lambda w: w.to("meta"),
    "float8_e4m3fn": lambda w: w.to(torch.float8_e4m3fn),
    "expanded": lambda w: w[:, :1].expand(-1, w.shape[1]),
    "overlapping|expanded": lambda w: w.flatten().as_strided(w.shape, (1, 1)),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_kind_that_no_training_writes_are_refused(tmp_path, kind):
    state = checkpoint_of(*randomized())
    key = "encoder.layers.0.fc1.weight"
    state["model"][key] = KINDS[kind](state["model"][key])
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(
        UserError, match=rf"other.pt holds {key} .*{kind}.*|other.pt cannot be read"
    ):
        read_checkpoint(str(tmp_path / "other.pt"))


@pytest.mark.parametrize("option", ["layers", "ffn_embed_dim", "embed_dim"])
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_sizes_that_the_weights_do_not_have_are_refused(tmp_path, stack, option):
    """Before a model of 10,000,000 layers is built, or one that a pruned training wrote."""
    for said in (10**7, 1):
        state = checkpoint_of(*randomized())
        state["cfg"]["model"][f"{stack}_{option}"] = said
        torch.save(state, tmp_path / "a.pt")
        told = f"a.pt contradicts itself: {stack}_{option} is {said} in its options"
        with pytest.raises(UserError, match=told):
            read_checkpoint(str(tmp_path / "a.pt"))


@pytest.mark.parametrize("old_format", [False, True])
def test_a_foreign_class_is_named_and_not_run(whole, tmp_path, old_format):
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    state = {**whole[1], "extra_state": {"meter": Attack(os.system, f"touch {mark}")}}
    torch.save(state, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(UserError, match=r"evil.pt holds (posix|nt)\.system, .* nothing in it was"):
        read_checkpoint(str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"weight": torch.ones(2)}},
        {"model": {"weight": torch.ones(2)}},
        {"model": {"weight": "text"}, "cfg": {"model": {}}},
        {"model": {}, "cfg": {"model": {}}},
        [torch.ones(2)],
        torch.ones(2),
    ],
)
def test_a_file_of_another_project_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match="other.pt is no checkpoint of fairseq"):
        read_checkpoint(str(tmp_path / "other.pt"))


def test_a_text_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "text.pt").write_text("some words\n" * 100)
    with pytest.raises(UserError, match="no file of torch.save"):
        read_checkpoint(str(tmp_path / "text.pt"))
    with pytest.raises(UserError, match="no such checkpoint"):
        read_checkpoint(str(tmp_path))


def test_a_file_that_cannot_be_written_whole_is_not_written(tmp_path):
    path = tmp_path / "out.pt"
    path.write_text("what was there before")
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint({"model": lambda: None}, str(path))
    assert path.read_text() == "what was there before"
    assert os.listdir(tmp_path) == ["out.pt"]
    with pytest.raises(UserError, match="cannot write"):
        write_checkpoint({}, str(tmp_path / "no such folder" / "out.pt"))


def test_a_full_disk_is_one_line(tmp_path):
    told = pytest.raises(UserError, match="cannot write .*out.pt: is the disk full")
    with limited(10_000), told:
        write_checkpoint({"model": torch.ones(10**5)}, str(tmp_path / "out.pt"))
    assert os.listdir(tmp_path) == []


def test_the_seconds_of_a_training_on_several_ranks_are_a_number():
    """fairseq keeps a tensor there, the mean of all ranks."""
    state = {"extra_state": {"previous_training_time": torch.tensor(3.26)}}
    state.update(model={}, cfg={"model": {}})
    assert training_facts(state)[0]["wall_seconds"] == 3.3
    state["extra_state"]["previous_training_time"] = float("nan")
    assert training_facts(state)[0]["wall_seconds"] is None
