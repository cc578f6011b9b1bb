"""What a checkpoint says of its training, as records and reports hold it."""

import math
import os
from typing import Any, Callable, Dict, Tuple

from fairseq_admin.checkpoints.checkpoint import method, model_options, seed_of
from fairseq_admin.methods import STACKS
from fairseq_admin.options import as_dict

SECTIONS = ("common", "task", "dataset", "optimization", "criterion", "optimizer", "lr_scheduler")
SECTIONS += ("checkpoint", "ema", "distributed_training", "model")  # of the configuration


def in_json(config: Any, word: Callable[[str], str] = str) -> Any:
    """*config* in JSON's types, what is a string by *word*."""
    config = as_dict(config)
    if isinstance(config, dict):
        return {str(name): in_json(value, word) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [in_json(value, word) for value in config]
    if isinstance(config, str):
        return word(config)
    return config if isinstance(config, (int, float, bool, type(None))) else str(config)


def portable(config: Any) -> Any:
    """*config* in JSON's types, and with the names of files instead of a machine's paths."""

    def name(word: str) -> str:
        if not os.path.isabs(word):
            return word
        return os.pathsep.join(map(os.path.basename, word.split(os.pathsep)))

    return in_json(config, name)


def training_facts(state: Dict[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """What was trained, for how long and with which configuration, of the checkpoint *state*; a
    fact that it does not tell is None."""
    options = model_options(state)
    cfg = {**(state.get("cfg") or {}), "model": options}
    layers = [options.get(f"{stack}_layers") for stack in STACKS]
    history = state.get("optimizer_history") or [{}]
    seconds = (state.get("extra_state") or {}).get("previous_training_time")
    seconds = math.nan if seconds is None else float(seconds)  # of several ranks a tensor
    facts = {
        "method": method(state),
        "layers": "-".join(str(n) for n in layers if n is not None) or None,
        "width": options.get("encoder_embed_dim") or options.get("decoder_embed_dim"),
        "seed": seed_of(state),
        "updates": history[-1].get("num_updates"),
        "wall_seconds": round(seconds, 1) if math.isfinite(seconds) else None,
    }
    if isinstance(cfg.get("task"), dict):  # of ours, which holds other sections too
        twice = ("schedule", *SECTIONS)
        cfg["task"] = {name: x for name, x in cfg["task"].items() if name not in twice}
    return facts, in_json({name: cfg[name] for name in SECTIONS if name in cfg})
