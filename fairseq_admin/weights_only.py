"""Importing it allow-lists for torch's `weights_only` what checkpoints of fairseq hold."""

import _codecs
import argparse
import collections
import typing

import numpy as np
import torch
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import meters
from omegaconf import DictConfig, ListConfig, base, nodes

try:
    from numpy._core import multiarray
except ImportError:  # NumPy 1
    from numpy.core import multiarray

# What a checkpoint file of fairseq holds beside tensors and plain containers: the options of a
# model without a dataclass, NumPy numbers and arrays in its meters (the n-gram counts of
# --eval-bleu), and the meters themselves where the file is of the time before 0.9.
IN_FILES = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.float32, np.float64)},
    _codecs.encode,  # how pickle writes the bytes of a NumPy number
    *[
        (getattr(meters, name), f"fairseq.meters.{name}")
        for name in ("AverageMeter", "TimeMeter", "StopwatchMeter")
    ],
    # a file says NumPy 1's or NumPy 2's name, whichever wrote it
    *[
        (getattr(multiarray, name), f"{module}.{name}")
        for name in ("scalar", "_reconstruct")
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    ],
]

# What the same checkpoint holds when rank 0 sends it to the other ranks at a resume: its options
# as an OmegaConf tree, and fairseq's marks where tensors were. Torch knows one list, so files may
# hold these too; none of them runs code.
BETWEEN_RANKS = [
    distributed_utils._TensorPlaceholder,
    DictConfig,
    ListConfig,
    nodes.AnyNode,
    base.ContainerMetadata,
    base.Metadata,
    collections.defaultdict,
    (typing.Any, "typing.Any"),
    dict,
    list,
    int,
]

torch.serialization.add_safe_globals(IN_FILES + BETWEEN_RANKS)
