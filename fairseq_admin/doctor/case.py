"""A training as it is about to start: the model, what it reads first, its optimizer and rates."""

import inspect
import math
from argparse import Namespace
from dataclasses import dataclass
from typing import Any, List, Tuple

import numpy as np
import torch
from fairseq import utils
from fairseq.optim import build_optimizer
from fairseq.optim.lr_scheduler import build_lr_scheduler
from fairseq.tasks import setup_task
from omegaconf import OmegaConf
from torch import nn

from fairseq_admin.analysis.building import new_model
from fairseq_admin.analysis.subjects import Batch
from fairseq_admin.batch import TOKEN_LIMIT, check_symbols, draw
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.methods import STACKS, method_of, title
from fairseq_admin.options import as_dict
from fairseq_admin.profiled_task import ProfiledTask, check_options
from fairseq_admin.profiling import profile_model, profiled
from fairseq_admin.restoring import restored
from fairseq_admin.training_checks import check_noise

STEPS = 8  # of the optimizer, each on a batch of its own
TOKENS = 64  # of a batch, a side
LONG = 60  # updates of a warmup that the steps go through whole
LOOKED = 50_000  # updates within which the highest rate is looked for, or until it has halved


@dataclass
class Case:
    """What a probe looks at."""

    config: Any  # of the whole training
    task: Any
    model: nn.Module
    batches: List[Batch]  # the first one is looked at, the others are stepped on
    pad: int
    rates: List[float]  # of each step
    peak: float  # the highest learning rate
    warmup: int  # updates until it is reached

    @property
    def method(self) -> str:
        """As `methods.method_of` has it."""
        return method_of(as_dict(self.config.model))

    def title(self) -> str:
        """What it is, for a reader."""
        layers = "-".join(str(len(getattr(self.model, stack).layers)) for stack in STACKS)
        return f"{title(self.method)} {layers}, lr {self.peak:g}, {self.warmup:,} warmup updates"


def open_case(config: Any) -> Case:
    """The training that *config* is of, with the weights that `fairseq-train` would start from;
    where its method is profiled, on the text that is read here. Raises UserError for a training
    that cannot be, goes on from a checkpoint, or that no probe knows."""
    check(config)
    try:
        rates, peak, warmup = schedule(config)
    except Exception as error:  # fairseq raises whatever its options make it stumble over
        raise UserError(
            f"no optimizer and learning rates that can be followed here ({one_line(error)})"
        ) from None
    if not peak > 0:
        raise UserError(f"--lr {config.optimization.lr[0]:g}: at such a rate no weight moves")
    try:
        task = setup_task(config.task)
        split = config.dataset.train_subset
        task.load_dataset(split, epoch=1, combine=True)
        model = new_model(config.model, task, config.common.seed, None)
        limits = utils.resolve_max_positions(task.max_positions(), model.max_positions())
        pad = task.source_dictionary.pad()
        batches = draw_text(task.datasets[split], limits, config.common.seed)
        inspect.signature(model.forward).bind(**batches[0]["net_input"])
        check_symbols([batch["net_input"] for batch in batches], model)
    except Exception as error:  # as above, of a foreign task or model
        raise UserError(f"no training of a translation model ({one_line(error)})") from None
    case = Case(config, task, model, batches, pad, rates, peak, warmup)
    if isinstance(task, ProfiledTask):
        task.check_training(config.model)
        check_options(task.options, model)
        if task.options.omega_file:
            task.initialize_omegas(model, config.model)
        else:
            set_omegas(case)
    return case


def draw_text(dataset: Any, limits: Any, seed: int) -> List[Batch]:
    """One batch more than STEPS of about TOKENS tokens a side, in a random order, of one pair at
    least each; of a text of fewer pairs some that are stepped on are the same."""
    order = draw(dataset, TOKEN_LIMIT - 1, limits, seed)
    tokens = np.cumsum(np.asarray(dataset.sizes)[order].max(axis=1))
    count = max(STEPS + 1, int((tokens <= TOKENS * (STEPS + 1)).sum()))
    parts = [part for part in np.array_split(order[:count], STEPS + 1) if len(part)]
    first, *others = [dataset.collater([dataset[int(i)] for i in part]) for part in parts]
    others = others or [first]
    return [first, *(others[n % len(others)] for n in range(STEPS))]


def set_omegas(case: Case) -> None:
    """Profile the model of *case* on its text, where its method is profiled."""
    if profiled(case.model):
        check_noise(case.config.model)
        texts = [batch["net_input"] for batch in case.batches]
        profile_model(case.model, texts, case.pad, case.config.common.seed)


def check(config: Any) -> None:
    """Raise UserError where *config* leaves out what decides whether a model learns, or is of a
    training that goes on."""
    for group in ("task", "model", "optimizer", "lr_scheduler"):
        given = config.get(group)
        if not isinstance(given, Namespace) and getattr(given, "_name", None) is None:
            raise UserError(f"which {group.replace('_', '-')}? give it as for the training")
    if len(config.optimization.lr) > 1:
        raise UserError(f"--lr {config.optimization.lr}: one rate can be followed, not several")
    if not OmegaConf.is_missing(config.checkpoint, "save_dir"):
        try:
            path = restored(config.checkpoint)
        except ValueError as error:
            raise UserError(str(error)) from None
        if path:
            raise UserError(
                f"the training would go on from {path}, and only a new model is looked at: give "
                "another --save-dir"
            )


def schedule(config: Any) -> Tuple[List[float], float, int]:
    """The learning rates of STEPS updates that stand for the beginning of the training, its
    highest rate, and how many updates there are before that.

    A warmup of more updates than STEPS is gone through in as many; of one longer than LONG only
    its beginning, until weights have gone as far as in one of LONG: while the rate rises in a line,
    their way grows with the square of the updates.
    """
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(stepper(config.optimizer), [parameter])
    scheduler = build_lr_scheduler(config.lr_scheduler, optimizer)
    scheduler.step_begin_epoch(1)
    last = int(config.optimization.max_update or LOOKED)
    path: List[float] = []
    peak = 0.0
    while len(path) <= STEPS or (len(path) < min(last, LOOKED) and path[-1] > peak / 2):
        path.append(float(scheduler.step_update(len(path))))  # of the update after so many
        peak = max(peak, path[-1])
    warmup = next(n for n, rate in enumerate(path) if rate >= peak * (1 - 1e-6))
    stride = max(1.0, min(warmup, math.sqrt(LONG * warmup)) / STEPS)
    return [path[round(n * stride)] for n in range(1, STEPS + 1)], peak, warmup


def stepper(options: Any) -> Any:
    """*options* of an optimizer that a probe can step with, on a CPU: for `radam`, whose first few
    steps hardly move, `adam`, which it is soon."""
    if isinstance(options, Namespace):  # of an optimizer without a dataclass
        return options
    options = OmegaConf.create(OmegaConf.to_container(options, resolve=True))
    if options._name == "radam":
        shared = {"adam_betas": options.radam_betas, "adam_eps": options.radam_eps}
        kept = {"lr": options.lr, "weight_decay": options.weight_decay, "tpu": False}
        options = OmegaConf.create({"_name": "adam", **shared, **kept})
    if options._name == "adam":
        options.use_old_adam, options.fp16_adam_stats = True, False  # the others are of GPUs
    return options
