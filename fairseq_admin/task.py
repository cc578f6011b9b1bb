"""translation_admin: fairseq's translation task, with the profile before training."""

import logging
import os
import platform
import zipfile
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

import fairseq
import torch
from fairseq import utils
from fairseq.data import data_utils
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II, OmegaConf

from fairseq_admin.batch import TOKEN_LIMIT, draw_batch
from fairseq_admin.data_files import check_parts
from fairseq_admin.errors import UserError
from fairseq_admin.omega_file import Profile, read_profile
from fairseq_admin.profiling import (
    apply_profile,
    keep_first_at_1,
    named_junctions,
    profile_model,
    warn_of_differences,
)
from fairseq_admin.ranks import end_ranks, from_rank_0
from fairseq_admin.restoring import is_finished, is_whole, last_checkpoint, mend, restored
from fairseq_admin.training_checks import check_bf16, check_sharding, check_training, of_training

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
    # all of these groups: what fairseq-train is about to do with the model
    checkpoint: Any = II("checkpoint")
    common: Any = II("common")
    dataset: Any = II("dataset")
    distributed_training: Any = II("distributed_training")
    optimization: Any = II("optimization")


@register_task("translation_admin", dataclass=TranslationAdminConfig)
class TranslationAdminTask(TranslationTask):
    """Translation whose new models are profiled and get their omegas in `build_model`: before the
    optimizer, the fp16 master copies, data parallel wrapping and EMA take copies of them."""

    cfg: TranslationAdminConfig

    @classmethod
    def add_args(cls, parser) -> None:
        """As fairseq's; raises UserError for --bf16."""
        super().add_args(parser)
        check_bf16(parser)

    @classmethod
    def setup_task(cls, cfg: TranslationAdminConfig, **kwargs):
        """As fairseq's; raises UserError for data or a dictionary that is not there, and for
        parameters that are to be sharded."""
        check_sharding(cfg)
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
        """As fairseq's; a model that is neither from a checkpoint nor about to be restored from one
        gets its omegas. A training that is finished ends here.

        Raises:
            UserError: for what no training can be, and for a checkpoint that is cut off.
        """
        path, finished = None, False
        if not from_checkpoint and of_training(self.cfg):
            check_training(self.cfg, cfg)
            path, finished = from_rank_0(self.find_checkpoint)
        if finished:
            logger.info("training is finished already, by %s: nothing to do", path)
            end_ranks()
            raise SystemExit(0)
        model = super().build_model(cfg, from_checkpoint)
        if path:
            logger.info("omegas are those of %s: nothing is profiled", path)
        elif not from_checkpoint:
            self.initialize_omegas(model, cfg)
        return model

    def find_checkpoint(self) -> Tuple[Optional[str], bool]:
        """The checkpoint that fairseq is about to restore, mended where it can be; and whether no
        update is left to do after it."""
        options = self.cfg.checkpoint
        path = restored(options)
        if path is None:
            if options.finetune_from_model and options.restore_file == "checkpoint_last.pt":
                raise UserError(
                    f"--finetune-from-model {options.finetune_from_model}: no such file"
                )
            return None, False
        if path == str(last_checkpoint(options.save_dir, options.checkpoint_suffix)):
            try:
                mend(options.save_dir, options.checkpoint_suffix)
            except ValueError as error:
                raise UserError(str(error)) from None
        elif not is_whole(path):
            raise UserError(f"{path} is cut off: give another checkpoint")
        elif path == options.finetune_from_model:
            return path, False
        try:
            state = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path))
        except Exception as error:  # torch raises whatever a damaged file makes it stumble over
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"cannot read {path}: {first}") from error
        return path, is_finished(state, options, self.cfg.optimization)

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
        self.load_dataset(split, epoch=1, combine=True)
        dataset = self.datasets.pop(split)  # the trainer loads it anew
        limits = utils.resolve_max_positions(self.max_positions(), model.max_positions())
        return draw_batch(dataset, self.cfg.profile_tokens, limits, seed)

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """As fairseq's; raises UserError for a split that is not there, holds nothing or is cut
        off. Where it has several parts, --upsample-primary's default, with which fairseq fails, is
        read as 1."""
        cfg, folders = self.cfg, utils.split_paths(self.cfg.data)
        folder = folders[(epoch - 1) % len(folders) if split == cfg.train_subset else 0]
        parts = check_parts(folder, split, cfg.source_lang, cfg.target_lang, combine)
        if parts > 1 and cfg.upsample_primary < 0:
            logger.info("%s has %d parts: each is read once (--upsample-primary 1)", split, parts)
            cfg.upsample_primary = 1
        try:
            super().load_dataset(split, epoch, combine, **kwargs)
        except FileNotFoundError:
            raise UserError(f"no split {split} in {os.path.abspath(folder)}") from None

    def get_checkpoint_dict(self) -> Dict[str, Any]:
        """The task state for fairseq's resume, which does not read that of the checkpoint."""
        return {type(self).__name__: self.state_dict()}

    def set_checkpoint_dict(self, saved: Dict[str, Any]) -> None:
        """Take the profile of the checkpoint that training goes on from."""
        self.state.merge_state_dict(saved)
