"""Checkpoint files: read under torch's `weights_only` protection, written whole or not at all."""

import os
import pickle
import re
from typing import Any, Dict, Optional

import torch
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from torch import Tensor

from fairseq_admin.checkpoints import tensor_file
from fairseq_admin.data_files import text_of
from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file
from fairseq_admin.fit import depths, methods_like, scaled
from fairseq_admin.methods import METHODS, STACKS, by_stack, method_of, title
from fairseq_admin.options import as_dict

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ENTRIES = {"cfg": dict, "task_state": dict, "extra_state": dict, "optimizer_history": list}
EMBEDDINGS = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
)


def read_checkpoint(path: str, optimizer: bool = False) -> Dict[str, Any]:
    """Read a checkpoint of fairseq to the CPU and compare its checksums; the *optimizer*'s state is
    left out unless it is wanted. Nothing in the file is executed. Raises UserError for a file that
    is missing, damaged, holds foreign classes, is no checkpoint, or whose weights are not those of
    its configuration."""
    if not os.path.isfile(path):
        raise UserError(f"no such checkpoint: {path}")
    try:
        state = tensor_file.load(path, "" if optimizer else "last_optimizer_state")
    except Exception as error:  # torch raises whatever a damaged file makes it stumble over
        named = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and named:
            raise UserError(
                f"{path} holds {named.group(1)}, which no checkpoint of fairseq needs: it was "
                "not loaded, and nothing in it was executed"
            ) from None
        raise UserError(
            f"{path} cannot be read: it is damaged, cut short, being written, or no file of "
            "torch.save"
        ) from None
    if why_not := foreign(state):
        raise UserError(f"{path} is no checkpoint of fairseq: {why_not}")
    for key, tensor in state["model"].items():
        check_weight(key, tensor, path)
    check_sizes(model_options(state), state["model"], path)
    check_residual(state, path)
    return state


def foreign(state: Any) -> Optional[str]:
    """Why *state* is nothing that fairseq writes as a checkpoint; None where it is."""
    model = state.get("model") if isinstance(state, dict) else None
    pairs = model.items() if isinstance(model, dict) else ()
    if not pairs or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in pairs):
        return "it holds no model"
    for entry, kind in ENTRIES.items():
        if not isinstance(state.get(entry), (kind, type(None))):
            return f"its {entry} is no {kind.__name__}"
    if model_options(state) is None:
        return "it holds no model configuration"
    sections = [section(state, name) for name in ("task", "common")]
    for part in (*sections, *(state.get("optimizer_history") or [])):
        if not isinstance(as_dict(part), dict):
            return f"it holds {part!r:.60} for options"
    return None


def check_weight(key: str, tensor: Tensor, path: str) -> None:
    """Raise UserError where *tensor* is of a kind that no training writes."""
    counter = tensor.dtype == torch.int64 and tensor.numel() == 1  # as BatchNorm has
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or not (tensor.dtype in FLOATS or counter):
        kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}".replace("torch.", "")
        raise UserError(f"{path} holds {key} as {kind}, which no training writes")
    reach = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride()))
    if tensor.numel() > reach + 1:
        raise UserError(f"{path} holds {key} expanded, which no training writes")


def check_residual(state: Dict[str, Any], path: str) -> None:
    """Raise UserError where the *state*'s weights are not of the residual method that it names."""
    residual = residual_of(state)
    if residual is None:
        return
    if not isinstance(residual, str) or not set(residual.split("/")) <= METHODS.keys():
        raise UserError(
            f"{path} is of the residual method {residual!r:.60}, which is not known here"
        )
    for stack, name in by_stack(residual).items():
        final_norm = stack == "encoder" or not model_options(state).get("no_decoder_final_norm")
        like = methods_like(state["model"], stack, final_norm)
        if depths(state["model"])[stack] and name not in like:
            raise UserError(
                f"{path} contradicts itself: its residual method is {title(residual)}, the weights "
                f"of its {stack} are of another"
            )


def check_sizes(options: Dict[str, Any], weights: Dict[str, Tensor], path: str) -> None:
    """Raise UserError where a Transformer's *options* say other depths or widths than its *weights*
    have: building what they say could take any time and memory."""
    layers = depths(weights)
    for stack in STACKS:
        fc1 = weights.get(f"{stack}.layers.0.fc1.weight")
        if fc1 is None or fc1.dim() != 2:
            continue  # no Transformer of fairseq
        found = {"layers": layers[stack], "ffn_embed_dim": len(fc1), "embed_dim": fc1.shape[1]}
        for name, size in found.items():
            said = options.get(f"{stack}_{name}")
            if isinstance(said, (int, float)) and said != size:
                raise UserError(
                    f"{path} contradicts itself: {stack}_{name} is {said} in its options and "
                    f"{size} in its weights"
                )


def model_options(state: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """The flat options of a checkpoint's model with their names, or None. ``_name`` is the
    architecture, also where the file is of the time before hydra."""
    options = state.get("args")
    if options is None:
        options = (state.get("cfg") or {}).get("model")
    options = as_dict(options)
    return {"_name": options.get("arch"), **options} if isinstance(options, dict) else None


def section(state: Dict[str, Any], name: str) -> Dict[str, Any]:
    """The options *name* of the configuration of a checkpoint; empty where it has none."""
    return as_dict((state.get("cfg") or {}).get(name) or {})


def task_options(state: Dict[str, Any]) -> Dict[str, Any]:
    """The options of a checkpoint's task that have a value; where all were in one, among the
    model's. Languages also where they were inferred from the data."""
    task = section(state, "task")
    own = {name: value for name, value in task.items() if value is not None}
    inferred = dict(zip(("source_lang", "target_lang"), text_of(state).get("languages", ())))
    return {**(model_options(state) or {}), **inferred, **own}


def seed_of(state: Dict[str, Any]) -> Any:
    """--seed of the training of the checkpoint *state*; None where it does not tell."""
    return section(state, "common").get("seed", model_options(state).get("seed"))


def residual_of(state: Dict[str, Any]) -> Optional[str]:
    """--residual of the `transformer_admin` in the checkpoint *state*; None for other models."""
    admin = any(key.endswith("_residual.omega") for key in state["model"])  # of the first versions
    return model_options(state).get("residual", "admin" if admin else None)


def method(state: Dict[str, Any]) -> str:
    """The method of the checkpoint *state*, as `methods.method_of` has it; of what is neither ours
    nor fairseq's Transformer the architecture's name."""
    options, residual = model_options(state), residual_of(state)
    if residual:
        return method_of({**options, "residual": residual})
    name = str(options["_name"])
    kind = ARCH_MODEL_REGISTRY.get(name) or MODEL_REGISTRY.get(name)
    fairseqs = kind is not None and kind.__module__.startswith("fairseq.model")
    attends = "transformer" in name or any(".self_attn." in key for key in state["model"])
    nested = any(isinstance(options.get(stack), dict) for stack in STACKS)
    if fairseqs and attends and not (nested or scaled(options, state["model"])):
        return method_of(options)
    return name


def finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite; makes no tensor as large as *tensor*."""
    return tensor.numel() == 0 or all(bool(x.isfinite()) for x in tensor.aminmax())


def same_memory(tensor: Tensor) -> tuple:
    """Equal for two tensors that are one, as tied embeddings are."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def with_equal_embeddings_tied(weights: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """The same weights, in which equal embeddings are one tensor, that a file then holds once.
    (fairseq writes tied embeddings three times where the model is on a GPU.)"""
    weights = dict(weights)
    for i, key in enumerate(EMBEDDINGS):
        for other in EMBEDDINGS[:i]:
            if key in weights and other in weights and torch.equal(weights[key], weights[other]):
                weights[key] = weights[other]
    return weights


def compact(weights: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """The same weights, each with memory of its own size, equal embeddings as one, so that a file
    holds what the model needs and nothing else."""
    tensors = {same_memory(tensor): tensor for tensor in weights.values()}
    copies = {place: tensor.clone() for place, tensor in tensors.items()}
    return with_equal_embeddings_tied({k: copies[same_memory(t)] for k, t in weights.items()})


def write_checkpoint(state: Dict[str, Any], path: str) -> None:
    """Write *state* to *path*, whole or not at all; UserError where it cannot be written."""
    with whole_file(path, "wb") as f:
        try:
            torch.save(state, f)
        except RuntimeError as error:  # of torch's writer
            raise UserError(f"cannot write {path}: is the disk full? ({error})") from error
