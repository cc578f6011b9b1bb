"""The configs of configs/, and overrides of them."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Tuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fairseq_admin.errors import UserError, one_line
from recipes.code import ROOT

CONFIGS = ROOT / "configs"


def load_config(name: str) -> DictConfig:
    """What configs/NAME.yaml and its bases say, without fairseq's defaults."""
    path = CONFIGS / f"{name}.yaml"
    if path not in CONFIGS.glob("*.yaml"):
        raise UserError(f"no config {name} in {CONFIGS}")
    return merged(path)


@lru_cache(maxsize=None)  # OmegaConf takes long
def merged(path: Path) -> DictConfig:
    """The config *path* with those that its `defaults:` name, as hydra merges them.

    Raises:
        UserError: for what is no config, and where a base wins over it. hydra adds fairseq's
            defaults to the config that is launched; were the bases merged before it, these defaults
            would win over them.
    """
    try:
        own = OmegaConf.load(path)
        order = own.pop("defaults", ["_self_"])
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no config: {one_line(error)}") from None
    parts = [own if name == "_self_" else merged(path.parent / f"{name}.yaml") for name in order]
    whole = OmegaConf.merge(*parts)
    if OmegaConf.merge(whole, own) != whole:
        raise UserError(f"{path}: an option that a base of it says too, and the base wins")
    return whole


@lru_cache(maxsize=None)  # a study says the same often
def said(override: str) -> Tuple[str, Any]:
    """The option and the value of an *override* as hydra reads it: to YAML `no` would be False.
    UserError for what is none."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise UserError(f"{override}: {one_line(error)}") from None
    if parsed.is_sweep_override():
        raise UserError(f"{override}: a sweep; in quotes it is one value")
    return parsed.key_or_group, parsed.value()


def quoted(value: str) -> str:
    """*value* in an override as hydra reads it: a path may hold commas, brackets and umlauts."""
    if re.fullmatch(r"[\w/.:+@-]+", value, re.ASCII):
        return value
    escaped = re.sub(r"(\\*)(?='|$)", r"\1\1", value).replace("'", "\\'")
    return f"'{escaped}'"
