"""fairseq's options, whatever holds them: OmegaConf, the dicts of a checkpoint, or a namespace; in
releases before hydra one namespace held all groups."""

from argparse import Namespace
from typing import Any, Dict

from omegaconf import OmegaConf

ABSENT = object()  # of an option that there is not


def as_dict(options: Any) -> Dict[str, Any]:
    """The *options* of a group by name; what holds none is given back as it is."""
    if OmegaConf.is_config(options):
        return OmegaConf.to_container(options, resolve=True, enum_to_str=True)
    return vars(options) if isinstance(options, Namespace) else options


def value(options: Any, name: str) -> Any:
    """The option or group *name* of *options*, ABSENT where they have none."""
    if isinstance(options, dict):
        return options.get(name, ABSENT)
    return getattr(options, name, ABSENT)


def group(options: Any, name: str) -> Any:
    """The group *name* of all *options*."""
    return options if isinstance(options, Namespace) else value(options, name)
