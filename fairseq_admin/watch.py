"""Tells, while a model trains, that it does not learn: as a mixin of a task for translation."""

import logging
import math
import re
import sys
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, List, Optional, Tuple

from fairseq.dataclass import FairseqDataclass
from fairseq.distributed.utils import get_global_rank
from torch import nn

from fairseq_admin.outcome import ALARM, NAN, RANK, STUCK, text_entropy
from fairseq_admin.ranks import end_training

logger = logging.getLogger("fairseq_cli.train")  # what --log-file is given to
WINDOW = 50  # updates whose mean loss is compared
FALLS = 0.005  # share of the unigrams' entropy by which it is lower in a training that learns
PAGE = "docs/troubleshooting.md#stuck"
DIVERGED = "THIS TRAINING HAS DIVERGED"
DIVERGED_PAGE = "docs/troubleshooting.md#the-loss-gets-stuck-or-explodes"
WEIGHT = re.compile(r"((?:en|de)coder\.layers\.\d+)\.(?:(self_attn|encoder_attn)|fc\d)\.")


@dataclass
class WatchOptions(FairseqDataclass):
    """When a training is told to be stuck."""

    stuck_after: int = field(
        default=300,
        metadata={
            "help": "updates after which a loss still that of the target's unigrams is told; not "
            "before the end of warmup, nor while it falls"
        },
    )
    stop_when_stuck: bool = field(
        default=False, metadata={"help": "end the training, with exit code 0, when that is told"}
    )


def warmup_of(schedule: Any) -> int:
    """Updates before the learning rate is at its highest, of options of fairseq's schedules."""
    if getattr(schedule, "phase_ratio", None):  # of tri_stage, as warmup_steps
        return int(schedule.phase_ratio[0] * schedule.max_update)
    updates = (getattr(schedule, f"warmup_{name}", None) for name in ("updates", "steps"))
    return next(filter(None, updates), 0)


class Watch:
    """Compares the loss of a training with the *entropy* of the unigrams of what it learns to
    write, in bits a token; before *after* updates nothing is said."""

    def __init__(self, entropy: float, after: int) -> None:
        self.entropy, self.after = entropy, after
        self.last: Deque[Tuple[float, float]] = deque(maxlen=WINDOW)
        self.first = 0  # update that was seen
        self.lowest = math.inf  # mean of a window, bits a token
        self.still = 0  # windows since the last that was lower than all before
        self.learned = 0  # the last update at which it was better
        self.told = False

    def take(self, update: int, bits: float, tokens: float) -> Optional[str]:
        """What to say after the *update* whose loss is *bits*, summed over *tokens*: a line, once,
        where the mean of the last WINDOW updates is no better than the unigrams', and of these and
        the WINDOW before neither was lower than all earlier, as by SGD, which learns slowly; else
        None."""
        self.first = self.first or update
        self.last.append((bits, tokens))
        if update % WINDOW or len(self.last) < WINDOW:
            return None
        mean = math.fsum(b for b, _ in self.last) / math.fsum(n for _, n in self.last)
        falls = mean < self.lowest - FALLS * self.entropy
        self.still = 0 if falls else self.still + 1
        self.lowest = min(self.lowest, mean)
        if not mean >= (1 - STUCK) * self.entropy:  # as a perplexity it might be too large
            self.learned = update
            return None
        if self.told or self.still < 2 or update < self.after:  # one may hold harder sentences
            return None
        self.told = True
        since = f"since update {self.learned or self.first}"
        if not self.learned and self.first == 1:
            since = "it never was better"
        return (
            f"{ALARM} at update {update}: its loss is {mean:.2f} bits a token, one that knows only "
            f"how frequent each word is has {self.entropy:.2f}; {since}. What helps: {PAGE}"
        )


def largest_gradient(model: nn.Module) -> str:
    """The sublayer whose gradient is largest, and its norm, over the weights and biases of the
    branch; of several that are no numbers the last, which the backward pass met first."""
    squares: Dict[str, float] = defaultdict(float)
    for name, parameter in model.named_parameters():
        found = WEIGHT.search(name)
        if found and parameter.grad is not None:
            square = parameter.grad.float().norm().item() ** 2
            sublayer = f"{found[1]}.{found[2] or 'ffn'}"
            squares[sublayer] += square if math.isfinite(square) else math.inf
    if not squares:
        return "no sublayer of a Transformer"
    *_, (square, largest) = sorted((square, name) for name, square in squares.items())
    if math.isfinite(square):
        return f"{largest} (norm {math.sqrt(square):.3g})"
    broken = [name for name, square in squares.items() if not math.isfinite(square)]
    return f"{broken[-1]} (no number, as in {len(broken)} of {len(squares)} sublayers)"


class WatchedTask:
    """Mixin of a task of fairseq, before its class among the bases: a training that is stuck is
    told in one line, and ended with --stop-when-stuck; one that breaks off since its loss or
    gradients are no numbers says where they are largest."""

    watch: Optional[Watch] = None
    updates = 0
    broken = False  # whether it is told that loss or gradients are no numbers

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """As fairseq's, which tells only here how many updates were made. Where gradients or the
        loss scale are no numbers any more it runs the batch again, while it handles the error."""
        self.updates = update_num + 1
        broken = sys.exc_info()[1]
        again = isinstance(broken, FloatingPointError)
        if again:
            for module in model.modules():  # a hook of its detector fails where no tensor comes out
                module._backward_hooks.clear()
        try:
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        finally:
            if again and not self.broken and any(p.grad is not None for p in model.parameters()):
                self.broken = True
                told = str(broken)  # of several ranks it says more than the first line
                told = NAN if RANK.search(told) else told.splitlines()[0]
                logger.error(
                    f"{DIVERGED} at update {self.updates}: {told}; the "
                    f"largest gradient is that of {largest_gradient(model)}. What helps: "
                    f"{DIVERGED_PAGE}"
                )

    def reduce_metrics(self, logging_outputs: List[Dict[str, Any]], criterion) -> None:
        """As fairseq's, after each update with what all ranks logged."""
        super().reduce_metrics(logging_outputs, criterion)
        if not criterion.training or self.cfg.train_subset not in self.datasets:
            return
        if self.watch is None:
            warmup = warmup_of(self.cfg.schedule)
            entropy = text_entropy(self.datasets[self.cfg.train_subset].tgt)
            self.watch = Watch(entropy, max(self.cfg.stuck_after, warmup))
        key = "nll_loss" if "nll_loss" in logging_outputs[0] else "loss"
        bits, tokens, sentences = (
            sum(float(x.get(k, 0)) for x in logging_outputs) for k in (key, "ntokens", "nsentences")
        )
        bits /= math.log(2) * (2 if "rdrop_kl_loss" in logging_outputs[0] else 1)  # of two passes
        tokens -= getattr(criterion, "ignore_prefix_size", 0) * sentences  # they have no loss
        told = tokens > 0 and self.watch.take(self.updates, bits, tokens)
        if told:
            if get_global_rank() == 0:
                logger.warning(told)
            if self.cfg.stop_when_stuck:
                end_training(self.cfg.common)
