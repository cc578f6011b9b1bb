"""What a study is: studies/NAME.yaml, every training that it consists of.

title: BLEU against depth
asks: a paragraph, the claim and whose it is
corpus: a name of data/, prepared once for all studies
conditions: names of configs/
overrides: of every training, as hydra reads them
grids:  # the trainings are the sum of these products
  - optimization.lr: [0.001, 0.002]  # an option and its values; or a name, and overrides by label:
    layers: {6-6: [model.encoder_layers=6, model.decoder_layers=6]}
full: trainings that are known to be stuck go on to their end (default: no)
evaluate: options of evaluate.sh, empty: no evaluation; {data} is the prepared corpus
table: columns of records/columns.py; rows that differ in no label are one
figure: {x: axis, y: column, row: axis, column: axis}; a line a method
"""

import hashlib
import re
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, Dict, Iterable, List, Optional, Tuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fairseq_admin.errors import UserError
from recipes.code import ROOT
from recipes.configs import load_config, quoted
from records.columns import COLUMNS, TOGETHER

STUDIES = ROOT / "studies"
RESULTS = ROOT / "results" / "studies"
MISTAKES = (TypeError, ValueError, AttributeError, KeyError)  # of what a study says
SEED = "seed"  # the axis that makes no other row
SMOKE = [  # of a training of a study in seconds
    *("common.log_interval=1", "dataset.max_tokens=200", "dataset.validate_interval_updates=4"),
    *("optimization.max_update=8", "checkpoint.save_interval_updates=4"),
    *("lr_scheduler.warmup_updates=2", "model.encoder_embed_dim=16"),
    *("model.encoder_ffn_embed_dim=32", "model.encoder_layers=2", "model.decoder_layers=2"),
    *("model.encoder_attention_heads=2", "model.decoder_attention_heads=2"),
]


@dataclass(frozen=True)
class Setting:
    """One training of a study: a config and its overrides, by option."""

    config: str
    labels: Dict[str, str]  # of the axes
    overrides: Dict[str, Optional[str]]  # None of an option that is taken out
    how: Tuple[str, ...] = ()  # what else decides its record

    @property
    def name(self) -> str:
        """Of its record and its folder."""
        labels = (f"seed{x}" if axis == SEED else x for axis, x in self.labels.items())
        plain = (re.sub(r"[^\w.+]+", "-", label).strip("-") for label in labels)
        return "_".join(plain) or self.config

    def arguments(self) -> List[str]:
        """The overrides as hydra reads them, in an order of their own."""
        return [k if x is None else f"{k}={x}" for k, x in sorted(self.overrides.items())]

    @cached_property
    def digest(self) -> str:
        """Hash of all that decides its record but code: equal where two studies share one."""
        config = OmegaConf.to_yaml(load_config(self.config), sort_keys=True)
        told = "\n".join([config, *self.arguments(), *self.how])
        return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True)
class Study:
    """The content of studies/NAME.yaml, see above."""

    name: str
    title: str
    asks: str
    corpus: str
    conditions: Tuple[str, ...]
    table: str
    grids: Tuple[Dict[str, Any], ...] = ({},)
    overrides: Tuple[str, ...] = ()
    full: bool = False
    evaluate: str = "--to score"
    figure: Dict[str, str] = field(default_factory=dict)

    def settings(self, smoke: bool = False) -> List[Setting]:
        """Its trainings, in the order in which they run; with *smoke* the last of each grid, tiny.

        Raises:
            UserError: where two are called alike.
        """
        how = (self.corpus, str(self.full), self.evaluate)
        found: List[Setting] = []
        for config, grid in product(self.conditions, self.grids):
            some = []
            for choice in product(*(choices(axis, values) for axis, values in grid.items())):
                labels = dict(label for label, _ in choice)
                if len(self.conditions) > 1:
                    labels = {"config": config, **labels}
                overrides = parsed(self.overrides)
                for _, more in choice:
                    overrides.update(more)
                overrides.update(parsed(SMOKE) if smoke else {})
                some.append(Setting(config, labels, overrides, how))
            found += some[-1:] if smoke else some
        names = [setting.name for setting in found]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{STUDIES / self.name}.yaml: two trainings are called {name}")
        return found


def choices(axis: str, values: Any) -> List[Tuple[Tuple[str, str], Dict[str, Optional[str]]]]:
    """((axis, label), overrides) of each value of an axis."""
    if isinstance(values, dict):
        return [((axis, str(label)), parsed(overrides)) for label, overrides in values.items()]
    short = axis.rpartition(".")[2]
    texts = ["null" if x is None else str(x) for x in values]
    return [((short, x), {axis: f"[{x}]" if short == "lr" else quoted(x)}) for x in texts]


def parsed(overrides: Iterable[str]) -> Dict[str, Optional[str]]:
    """Overrides as hydra reads them, by option."""
    parts = (override.partition("=") for override in overrides)
    return {key: value if equals else None for key, equals, value in parts}


def load_study(name: str) -> Study:
    """The study of studies/NAME.yaml.

    Raises:
        UserError: where there is none, or it is no study.
    """
    path = STUDIES / f"{name}.yaml"
    if path not in STUDIES.glob("*.yaml"):
        raise UserError(f"no study {name}: there are {', '.join(known_studies())}")
    try:
        study = Study(name=name, **OmegaConf.to_container(OmegaConf.load(path)))
        check(study)
    except (OmegaConfBaseException, YAMLError, *MISTAKES) as error:
        raise UserError(f"{path} is no study: {' '.join(str(error).split())}") from None
    return study


def check(study: Study) -> None:
    """Raise ValueError for what no study can be."""
    settings, columns = study.settings(), study.table.split()
    if not settings:
        raise ValueError("it has no training")
    axes = set.intersection(*(set(setting.labels) for setting in settings))
    drawn = {key: axis for key, axis in study.figure.items() if key != "y"}
    if set(drawn) - {"x", "row", "column"} or bool(drawn) != ("y" in study.figure):
        raise ValueError("a figure has x and y, and row and column")
    shown = {"warmup": "warmup_updates", "optimizer": "optimizer", "init": "init"}
    shown.update(dict.fromkeys(("lr", "highest_lr", "best_lr"), "lr"))
    for axis in {*drawn.values(), *(shown[name] for name in columns if name in shown)} - axes:
        raise ValueError(f"not every training has a label of {axis}: there are {sorted(axes)}")
    known = [*COLUMNS, *TOGETHER, *sorted(axes - {SEED, *COLUMNS})]
    for column in {*columns} - {*known}:
        raise ValueError(f"no column {column}: there are {', '.join(known)}")
    if study.figure.get("y", "valid") not in (n for n, (_, _, form) in COLUMNS.items() if form):
        raise ValueError(f"a figure's y is a column with a number, not {study.figure['y']}")
    try:
        shlex.split(study.evaluate)
    except ValueError as error:
        raise ValueError(f"evaluate: {error}") from None
    for setting in settings:
        given = setting.overrides.get("optimization.max_update")
        if not int(given or load_config(setting.config).optimization.get("max_update") or 0):
            raise ValueError(f"{setting.name}: no optimization.max_update, of which a third tells")


def known_studies() -> List[str]:
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))
