"""What a checkpoint says of its training, as fairseq's own model and task would say it."""

from collections import OrderedDict
from dataclasses import fields
from typing import Any, Dict, Optional

import numpy as np
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.translation import TranslationConfig

from fairseq_admin.checkpoints.average import EMA
from fairseq_admin.model import DEFAULTS
from fairseq_admin.options import as_dict
from fairseq_admin.profiled_task import ProfiledTask, ProfileOptions

OURS = (*DEFAULTS, *ProfileOptions.__annotations__, "profile", "user_dir", *EMA)


def plain_config(state: Dict[str, Any], options: Dict[str, Any]) -> Dict[str, Any]:
    """The configuration of *state* for fairseq's own model and task, in plain containers.

    ``cfg["model"]`` is what fairseq writes for its `transformer`, a namespace of the model's and
    the task's options, as an OrderedDict whose items are attributes too: fairseq and CTranslate2's
    converter ask for the attributes, and torch loads it under its protection.
    """
    cfg = plain(state.get("cfg") or {})
    # a file of the time before hydra has the task's options among the model's
    task = cfg.get("task") or {**plain(options), "_name": options.get("task")}
    task = {**task, "_name": plain_task(task["_name"])}
    if task["_name"] == "translation":
        known = {"_name", *(field.name for field in fields(TranslationConfig))}
        task = {name: value for name, value in task.items() if name in known}
    else:
        task = without_ours(task)
    model = OrderedDict({**task, **plain(options), "arch": "transformer", "task": task["_name"]})
    model.__dict__.update(model)
    common = {**cfg.get("common", {}), "user_dir": None}
    return {**cfg, "common": common, "task": task, "model": model}


def plain_task(name: Optional[str]) -> str:
    """fairseq's own task that the task *name* is made of; `translation` for one that is not known
    here."""
    for kind in getattr(TASK_REGISTRY.get(name), "__mro__", ()):
        if not issubclass(kind, ProfiledTask) and kind in TASK_REGISTRY.values():
            return next(task for task, found in TASK_REGISTRY.items() if found is kind)
    return "translation"


def without_ours(state: Dict[str, Any]) -> Dict[str, Any]:
    """*state* in plain containers, without what the plugin put there; a task that profiles keeps
    that alone under its class's name. The description of the text stays: by its dictionaries other
    data is known."""

    def ours(name: str, value: Any) -> bool:
        return name in OURS or (isinstance(value, dict) and set(value) <= {"profile", "text"})

    return {name: plain(value) for name, value in state.items() if not ours(name, value)}


def plain(value: Any) -> Any:
    """*value* in tensors, plain containers and Python's numbers."""
    value = as_dict(value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return value
