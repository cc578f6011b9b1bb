"""translation_admin: fairseq's translation task, with the profile before training."""

import logging
import os
import platform
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import fairseq
import numpy as np
import torch
from fairseq import utils
from fairseq.data import data_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II, OmegaConf

from fairseq_admin.errors import UserError
from fairseq_admin.omega_file import read_profile
from fairseq_admin.profiling import Profile, apply_profile, named_junctions, profile_model

logger = logging.getLogger(__name__)

TOKEN_LIMIT = 8192  # tokens; "fewer than 8192" in the paper's appendix, and enough for 1 % in omega
PADDED_LIMIT = 8  # times the budget; bounds memory where one sentence is far longer than the rest

# Options that change branch variances; a profile made with others is used, with a warning.
PROFILED_OPTIONS = (
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "decoder_embed_dim",
    "decoder_ffn_embed_dim",
    "decoder_attention_heads",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "relu_dropout",
    "activation_fn",
    "parameter_init",
)


@dataclass
class TranslationAdminConfig(TranslationConfig):
    """Options of `translation_admin`: those of `translation`, and how to profile."""

    profile_tokens: int = field(
        default=4096,
        metadata={
            "help": "tokens of training text to profile, on the source side and on the target "
            f"side each at most; fewer than {TOKEN_LIMIT}"
        },
    )
    profile_seed: Optional[int] = field(
        default=None,
        metadata={"help": "seed of the profile's sentences and dropout masks (default: --seed)"},
    )
    omega_file: Optional[str] = field(
        default=None,
        metadata={
            "help": "take the omegas of this file instead of profiling: JSON of `fairseq-admin "
            "profile`, or a profile of Transformer-Clinic or deepnmt"
        },
    )
    seed: int = II("common.seed")


@register_task("translation_admin", dataclass=TranslationAdminConfig)
class TranslationAdminTask(TranslationTask):
    """Translation whose new models are profiled and get their omegas in `build_model`: before the
    optimizer, the fp16 master copies, data parallel wrapping and EMA take copies of them."""

    cfg: TranslationAdminConfig

    @classmethod
    def setup_task(cls, cfg: TranslationAdminConfig, **kwargs):
        """As fairseq's; raises UserError for data or a dictionary that is not there."""
        if not cfg.data:
            raise UserError("no data: give the folder that fairseq-preprocess wrote")
        folder = utils.split_paths(cfg.data)[0]
        if not os.path.isdir(folder):
            raise UserError(f"no such data folder: {os.path.abspath(folder)}")
        langs = [cfg.source_lang, cfg.target_lang]
        if None in langs:
            langs = data_utils.infer_language_pair(folder)
        if None in langs:
            raise UserError(
                f"no binarized data in {os.path.abspath(folder)}: give the folder that "
                "fairseq-preprocess wrote, or name the languages by -s and -t"
            )
        for lang in langs:
            dictionary = os.path.join(folder, f"dict.{lang}.txt")
            if not os.path.exists(dictionary):
                raise UserError(f"missing dictionary {dictionary}: run fairseq-preprocess again")
        return super().setup_task(cfg, **kwargs)

    def build_model(self, cfg, from_checkpoint: bool = False):
        """As fairseq's; a model that is not from a checkpoint gets its omegas."""
        model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint:
            self.initialize_omegas(model, cfg)
        return model

    def initialize_omegas(self, model, cfg) -> None:
        """Set the omegas of *model* by the profile of rank 0, and keep it in the task state."""
        if not any(named_junctions(model).values()):
            logger.warning("translation_admin: %s has no omegas to set", type(model).__name__)
            return
        profile = from_rank_0(lambda: self.make_profile(model, cfg).to_dict())
        self.state.merge_state_dict({"profile": profile})
        apply_profile(model, Profile.from_dict(profile))
        model.omegas_set = True
        logger.info("omegas\n%s", Profile.from_dict(profile).table())

    def make_profile(self, model, cfg) -> Profile:
        """The profile of the omega file or, without one, of a forward pass over training text."""
        values = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
        options = {name: values[name] for name in PROFILED_OPTIONS}
        if self.cfg.omega_file:
            profile = read_profile(self.cfg.omega_file, model)
            warn_of_differences(profile, options)
            if not model.cfg.learn_first_omega:
                keep_first_at_1(profile)
            return profile
        seed = self.cfg.seed if self.cfg.profile_seed is None else self.cfg.profile_seed
        batch = self.draw_batch(model, seed)
        profile = profile_model(model, batch["net_input"], self.src_dict.pad(), seed)
        profile.meta = {
            "arch": values["_name"],
            "encoder_layers": values["encoder_layers"],
            "decoder_layers": values["decoder_layers"],
            **options,
            "seed": seed,
            "profile_tokens": self.cfg.profile_tokens,
            "sentences": len(batch["id"]),
            "source_tokens": int(batch["net_input"]["src_lengths"].sum()),
            "target_tokens": int(batch["ntokens"]),
            "versions": versions(),
        }
        return profile

    def draw_batch(self, model, seed: int) -> Dict[str, Any]:
        """Training sentences in a random order, as many as the budget of tokens takes.

        Raises:
            UserError: for a budget out of range, and where no training sentence fits it.
        """
        budget = self.cfg.profile_tokens
        if seed < 0:
            raise UserError(f"--profile-seed {seed}: give 0 or more")
        if not 0 < budget < TOKEN_LIMIT:
            raise UserError(
                f"--profile-tokens {budget}: give 1 or more and fewer than {TOKEN_LIMIT}"
            )
        split = self.cfg.train_subset
        try:
            self.load_dataset(split, epoch=1, combine=True)
        except FileNotFoundError as error:
            raise UserError(f"no training data to profile: {error}") from error
        dataset = self.datasets.pop(split)  # the trainer loads it anew
        if dataset.tgt is None or len(dataset) == 0:
            raise UserError(
                f"nothing to profile: {split!r} in {self.cfg.data} has no sentence pair"
            )
        limits = utils.resolve_max_positions(self.max_positions(), model.max_positions())
        allowed, _ = dataset.filter_indices_by_size(np.arange(len(dataset)), limits)
        sizes = np.stack([dataset.src_sizes, dataset.tgt_sizes], axis=1)  # (pairs, 2) in tokens
        chosen = choose(sizes, allowed, budget, np.random.default_rng(seed))
        if not chosen:
            raise UserError(
                f"nothing to profile: of {len(dataset)} pairs in {split!r} none has at most "
                f"{budget} tokens a side (--profile-tokens) and fits the length limits {limits}"
            )
        return dataset.collater([dataset[i] for i in chosen])


def choose(sizes, allowed, budget: int, rng) -> List[int]:
    """Indices of pairs in random order until the next one would exceed the budget.

    Args:
        sizes: tokens of the source and of the target of each pair, `(pairs, 2)`.
        allowed: indices to draw from.
        budget: most tokens on either side.
        rng: a NumPy generator.
    """
    allowed = np.asarray(allowed)
    allowed = allowed[(sizes[allowed] <= budget).all(axis=1)]
    total, longest, chosen = np.zeros(2, int), np.zeros(2, int), []
    # a pair has a token at least, so no more than `budget` pairs fit
    for i in rng.choice(allowed, min(len(allowed), budget), replace=False):
        if (total + sizes[i] > budget).any():
            break
        wider = np.maximum(longest, sizes[i])
        if (wider * (len(chosen) + 1) <= PADDED_LIMIT * budget).all():
            total, longest = total + sizes[i], wider
            chosen.append(int(i))
    return chosen


def warn_of_differences(profile: Profile, options: Dict[str, Any]) -> None:
    """Warn of each option that the file's profile was made with otherwise."""
    for name, value in options.items():
        if name in profile.meta and profile.meta[name] != value:
            logger.warning(
                "the omega file was made with %s %s, this model has %s; its omegas are used as "
                "they are",
                name,
                profile.meta[name],
                value,
            )


def keep_first_at_1(profile: Profile) -> None:
    """A first omega that is not trained stays 1, whatever a file says."""
    for stack in profile.stacks.values():
        first = stack.sublayers[0]
        if first.omega != 1:
            logger.warning(
                "the omega file gives %s omega %s; it is kept at 1 (see --learn-first-omega)",
                first.name,
                first.omega,
            )
            first.omega = 1.0


def from_rank_0(make) -> Any:
    """What *make* returns on rank 0, on every rank; a UserError of rank 0 is raised on all."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return make()
    result, error = None, None
    group = distributed_utils.get_global_group()
    if distributed_utils.get_global_rank() == 0:
        try:
            result = make()
        except Exception as e:  # the other ranks wait: tell them before going down
            error = f"rank 0: {e}"
            logger.exception("the profile failed")
        except UserError as e:
            error = str(e)
    result, error = distributed_utils.broadcast_object((result, error), 0, group)
    if error:
        raise UserError(error)
    return result


def versions() -> Dict[str, str]:
    """Versions that a profile depends on."""
    return {
        "fairseq": fairseq.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
