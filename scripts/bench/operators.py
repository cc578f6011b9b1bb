"""Operators that a training step launches, for scripts/bench.py: their number is the same on every
machine of a kind and at every load."""

from argparse import Namespace
from collections import Counter
from itertools import product
from typing import Any, Dict, Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.training import PLAIN, make_batch, make_trainer, stacks

# that move no data: a view, a size
VIEWS = ("view", "_unsafe_view", "t", "transpose", "expand", "slice", "select", "detach", "alias")
VIEWS += ("unsqueeze", "squeeze", "permute", "split", "as_strided", "_reshape_alias", "unbind")


class Operators(TorchDispatchMode):
    """Counts what is called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        if name not in VIEWS:
            self.calls[name] += 1
        return function(*args, **(kwargs or {}))


def operators(method: str, layers: str, width: int, options: Namespace) -> Dict[str, Any]:
    """The row of *method*, or of fairseq's own model."""
    if method == PLAIN:
        options = Namespace(**{**vars(options), "options": ""})
    trainer = make_trainer(method, layers, width, options)
    batch = make_batch(trainer.task.source_dictionary, options.tokens)
    trainer.train_step([batch])  # the optimizer makes its state
    batch, _ = trainer._prepare_sample(batch)
    model, criterion = trainer.model.train(), trainer.criterion
    parts = {}
    with Operators() as parts["forward"]:
        loss, _, _ = criterion(model, batch)
    with Operators() as parts["backward"]:
        trainer.optimizer.backward(loss)
    with Operators() as parts["optimizer"], torch.no_grad():
        trainer.optimizer.step()
    counts = {name: sum(part.calls.values()) for name, part in parts.items()}
    return {
        "method": method,
        "options": options.options,
        "layers": "{}-{}".format(*stacks(layers)),
        "width": width,
        **counts,
        "step": sum(counts.values()),
    }


def bench_operators(options: Namespace) -> Iterator[Dict[str, Any]]:
    """Rows of all sizes and methods, fairseq's own first."""
    methods = (PLAIN, *options.methods)
    for width, layers, method in product(options.widths, options.layers, methods):
        yield operators(method, layers, width, options)
