"""Tiny models and batches for tests that run in the test process."""

import os
import random
import resource
import time
from argparse import Namespace
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import torch
from fairseq import models
from fairseq.data import Dictionary
from fairseq.data.language_pair_dataset import collate
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf

import fairseq_admin  # noqa: F401  registers the model and the task
from fairseq_admin.profiling import named_junctions
from fairseq_admin.task import TranslationAdminConfig, TranslationAdminTask

TYPES = 60  # words of the in-memory dictionary

TINY = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "dropout": 0.0,
}


@contextmanager
def limited(size: int) -> Iterator[None]:
    """A full disk to a program: no file of this process grows beyond *size* bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Poll, since the other side is a process or a thread, until *condition*(); fails when it never
    comes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.002)


def dictionary(types: int = TYPES) -> Dictionary:
    """fairseq's four symbols and *types* words."""
    made = Dictionary()
    for i in range(types):
        made.add_symbol(f"w{i}")
    return made


def model_config(arch: str, **given: Any):
    """The model's config as the trainer has it; for fairseq's own `transformer` a Namespace."""
    if arch not in models.MODEL_DATACLASS_REGISTRY:
        return Namespace(_name=arch, **given)
    config = models.MODEL_DATACLASS_REGISTRY[arch](_name=arch, **given)
    return OmegaConf.create({"model": config}).model


def task_config(**given: Any):
    """Options of the task among all others of a training; those with a dot are of other groups."""
    cfg = OmegaConf.structured(FairseqConfig)
    cfg.checkpoint.save_dir = "no such folder"
    cfg.task = OmegaConf.structured(TranslationAdminConfig)
    for name, value in given.items():
        OmegaConf.update(cfg, name if "." in name else f"task.{name}", value)
    return cfg.task


def make_task(types: int = TYPES, joined: bool = True, **given: Any) -> TranslationAdminTask:
    """The task with dictionaries in memory, where no data folder is read."""
    source = dictionary(types)
    target = source if joined else dictionary(types)
    given = {"dataset.disable_validation": True, **given}
    return TranslationAdminTask(task_config(**given), source, target)


def build(arch: str = "transformer_admin", seed: int = 1, types: int = TYPES, **given: Any):
    """A model of TINY size but for the *given* options; omegas are 1."""
    cfg = model_config(arch, **{**TINY, **given})
    torch.manual_seed(seed)
    return models.build_model(cfg, make_task(types))


def sentences(lengths: List[Tuple[int, int]], seed: int = 1, types: int = TYPES) -> List[Dict]:
    """Random sentence pairs of the given (source, target) lengths, the end symbol counted."""
    words = dictionary(types)
    generator = torch.Generator().manual_seed(seed)

    def sentence(length: int) -> torch.Tensor:
        tokens = torch.randint(words.nspecial, len(words), (length,), generator=generator)
        tokens[-1] = words.eos()
        return tokens

    return [
        {"id": i, "source": sentence(source), "target": sentence(target)}
        for i, (source, target) in enumerate(lengths)
    ]


def batched(samples: List[Dict], **padded_to: int) -> Dict[str, Any]:
    """fairseq's batch of *samples*, sources padded on the left and targets on the right; to more
    columns than needed with ``source=`` and ``target=``."""
    words = dictionary(0)
    return collate(
        samples,
        pad_idx=words.pad(),
        eos_idx=words.eos(),
        left_pad_source=True,
        left_pad_target=False,
        pad_to_length={"source": None, "target": None, **padded_to} if padded_to else None,
    )


LENGTHS = [(9, 7), (3, 12), (6, 4), (11, 5), (8, 8)]
PAD = dictionary(0).pad()


def net_input(lengths: List[Tuple[int, int]] = LENGTHS, **kwargs: Any) -> Dict[str, torch.Tensor]:
    """Model inputs of a batch of random sentences."""
    return batched(sentences(lengths, **kwargs))["net_input"]


def checkpoint_of(model, cfg, **more: Any) -> Dict[str, Any]:
    """What fairseq's trainer saves of *model* and the config that it was built from."""
    options = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    task = {"_name": "translation_admin", "data": "data-bin", "source_lang": "de"}
    task.update(target_lang="en", profile_tokens=4096, omega_file=None)
    return {
        "args": None,
        "cfg": {"model": options, "task": task, "common": {"user_dir": "fairseq_admin"}},
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [{"num_updates": 7, "lr_scheduler_state": {"best": 1.0}}],
        "task_state": {"profile": {"format": "p"}},
        "extra_state": {"train_iterator": {"epoch": 3}, "TranslationAdminTask": {}},
        **more,
    }


def randomized(seed: int = 1, types: int = TYPES, **given: Any):
    """An Admin model with omegas drawn from 0.5 to 10 and random norms and biases; its config."""
    model = build(seed=seed, types=types, **given)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".omega"):
                parameter.copy_(0.5 + 9.5 * torch.rand(parameter.shape, generator=generator))
            elif parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model, model_config("transformer_admin", **{**TINY, **given})


GIVEN = {**TINY, "dropout": 0.1}


def task_of(corpus, **given) -> TranslationAdminTask:
    """translation_admin set up as fairseq-train does, on a data folder."""
    languages = {"source_lang": "de", "target_lang": "en"}
    return TranslationAdminTask.setup_task(task_config(data=str(corpus), **languages, **given))


def built(corpus, from_checkpoint=False, model=None, **given):
    """A model of seed 1, its task, and the random states after."""
    task = task_of(corpus, **given)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    model = task.build_model(
        model_config("transformer_admin", **{**GIVEN, **(model or {})}), from_checkpoint
    )
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return model, task, states


def omegas_of(model):
    return [j.omega[0].item() for js in named_junctions(model).values() for j in js.values()]


def cut(path, share=0.5):
    os.truncate(path, int(path.stat().st_size * share))
