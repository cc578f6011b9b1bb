"""A training step on torch's device `meta`: its FLOPs and living bytes, operator by operator."""

import weakref
from types import SimpleNamespace
from typing import Any, Iterable, NamedTuple, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.models import MODEL_DATACLASS_REGISTRY, build_model
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from fairseq_admin.checkpoints.random_text import dictionary


class Count(NamedTuple):
    """One step: FLOPs, forward and backward; most bytes that it took beside the weights."""

    parameters: int
    flops: int
    peak: int


def build(model: Any, vocabulary: int) -> Tuple[Any, Any]:
    """fairseq's model of the config *model* on `meta`, and its dictionary."""
    words = dictionary(vocabulary)
    if model._name in MODEL_DATACLASS_REGISTRY:  # its defaults, as hydra adds them
        defaults = OmegaConf.structured(MODEL_DATACLASS_REGISTRY[model._name])
        model = OmegaConf.create({"model": OmegaConf.merge(defaults, model)}).model
    task = SimpleNamespace(source_dictionary=words, target_dictionary=words)
    with torch.device("meta"):
        return build_model(model, task), words


class Allocations(TorchDispatchMode):
    """A context whose `peak` is the most bytes that tensors on `meta`, but the *known*, took."""

    def __init__(self, known: Iterable[Any]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return False  # is there padding? no
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                self.take(tensor.untyped_storage())
        return result

    def take(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.free, key, size)

    def free(self, key: int, size: int) -> None:
        self.alive.remove(key)
        self.now -= size


def count(model: Any, vocabulary: int, shape: Tuple[int, int], dtype: str = "half") -> Count:
    """A step of *model* in *dtype*, half or float, its label-smoothed loss in fp32; *shape* of
    source and target: `(sentences, positions)`."""
    net, words = build(model, vocabulary)
    getattr(net, dtype)().train()
    tokens = torch.ones(shape, dtype=torch.long, device="meta")
    batch = {"src_tokens": tokens, "src_lengths": tokens[:, 0], "prev_output_tokens": tokens}
    sample = {"net_input": batch, "target": tokens, "ntokens": tokens.numel()}
    task = SimpleNamespace(target_dictionary=words)
    criterion = LabelSmoothedCrossEntropyCriterion(task, False, label_smoothing=0.1)
    memory = Allocations([*net.parameters(), *net.buffers(), tokens])
    with FlopCounterMode(display=False) as flops, memory:
        criterion(net, sample)[0].backward()
    parameters = sum(p.numel() for p in net.parameters())
    return Count(parameters, flops.get_total_flops(), memory.peak)
