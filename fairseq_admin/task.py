"""translation_admin: fairseq's translation task, with the profile before training."""

import logging
import os
import platform
from dataclasses import dataclass, field
from typing import Any, Dict, Optional

import fairseq
import torch
from fairseq import utils
from fairseq.data import data_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II, OmegaConf

from fairseq_admin.batch import TOKEN_LIMIT, check_not_empty, draw_batch
from fairseq_admin.errors import UserError
from fairseq_admin.omega_file import Profile, read_profile
from fairseq_admin.profiling import (
    apply_profile,
    keep_first_at_1,
    named_junctions,
    profile_model,
    warn_of_differences,
)

logger = logging.getLogger(__name__)

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
    initialized = None  # the model whose omegas this task set
    profile_restored = False  # from the checkpoint that training goes on from

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
        self.initialized = model
        logger.info("omegas\n%s", Profile.from_dict(profile).table())

    def make_profile(self, model, cfg) -> Profile:
        """The profile of the omega file or, without one, of a forward pass over training text."""
        values = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
        options = {name: values[name] for name in PROFILED_OPTIONS}
        if self.cfg.omega_file:
            names = {stack: list(found) for stack, found in named_junctions(model).items()}
            profile = read_profile(self.cfg.omega_file, names)
            warn_of_differences(profile, options)
            if not model.cfg.learn_first_omega:
                keep_first_at_1(profile)
            return profile
        seed = self.cfg.seed if self.cfg.profile_seed is None else self.cfg.profile_seed
        batch = self.draw(model, seed)
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
            "versions": {  # that a profile depends on
                "fairseq": fairseq.__version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        }
        return profile

    def draw(self, model, seed: int) -> Dict[str, Any]:
        """A batch of training sentences for the profile, by :func:`draw_batch`."""
        split = self.cfg.train_subset
        check_not_empty(self.cfg.data, split, self.cfg.source_lang, self.cfg.target_lang)
        try:
            self.load_dataset(split, epoch=1, combine=True)
        except FileNotFoundError as error:
            raise UserError(f"no training data to profile: {error}") from error
        dataset = self.datasets.pop(split)  # the trainer loads it anew
        limits = utils.resolve_max_positions(self.max_positions(), model.max_positions())
        return draw_batch(dataset, self.cfg.profile_tokens, limits, seed)

    def state_dict(self) -> Dict[str, Any]:
        """What checkpoints keep: the profile, unless the omegas come from another one's model."""
        state = super().state_dict()
        if getattr(self.initialized, "omegas_loaded", False) and not self.profile_restored:
            state = {name: value for name, value in state.items() if name != "profile"}
        return state

    def get_checkpoint_dict(self) -> Dict[str, Any]:
        """The same for fairseq's resume, which does not read the task state."""
        return {type(self).__name__: self.state_dict()}

    def set_checkpoint_dict(self, saved: Dict[str, Any]) -> None:
        """Take the profile of the checkpoint that training goes on from."""
        self.state.merge_state_dict(saved)
        self.profile_restored = "profile" in saved


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
            error = e.message
    result, error = distributed_utils.broadcast_object((result, error), 0, group)
    if error:
        torch.distributed.destroy_process_group()  # its threads would abort the exit
        raise UserError(error)
    return result
