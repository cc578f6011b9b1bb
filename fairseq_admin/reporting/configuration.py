"""The configuration of a training, as records and reports hold it."""

import argparse
import os
from typing import Any, Dict

SECTIONS = ("common", "task", "dataset", "optimization", "criterion", "optimizer", "lr_scheduler")
SECTIONS += ("checkpoint", "ema", "distributed_training", "model")  # of the configuration


def portable(config: Any) -> Any:
    """*config* in JSON's types, and with the names of files instead of a machine's paths."""
    if isinstance(config, argparse.Namespace):
        config = vars(config)
    if isinstance(config, dict):
        return {str(name): portable(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [portable(value) for value in config]
    if isinstance(config, str) and os.path.isabs(config):
        return os.path.basename(config)
    return config if isinstance(config, (str, int, float, bool, type(None))) else str(config)


def flat(config: Dict[str, Any]) -> Dict[str, Any]:
    """Value by "section.option"."""
    sections = {name: options for name, options in config.items() if isinstance(options, dict)}
    return {f"{name}.{option}": x for name in sections for option, x in sections[name].items()}
