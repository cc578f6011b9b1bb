"""The profile before training, as a mixin for any task of fairseq."""

import logging
import platform
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import fairseq
import torch
from fairseq import utils
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.utils import gen_parser_from_dataclass
from omegaconf import II

from fairseq_admin.batch import TOKEN_LIMIT, check_symbols, draw_batches
from fairseq_admin.errors import UserError
from fairseq_admin.fit import COMPUTED_BY
from fairseq_admin.methods import by_stack, title
from fairseq_admin.omega_file import Profile, read_profile
from fairseq_admin.options import as_dict, group
from fairseq_admin.profiling import (
    apply_profile,
    keep_first_at_1,
    named_junctions,
    profile_model,
    profiled,
    warn_of_differences,
)
from fairseq_admin.ranks import end_training, from_rank_0
from fairseq_admin.resume_checks import find_checkpoint
from fairseq_admin.training_checks import (
    check_bf16,
    check_noise,
    check_sharding,
    check_training,
    ddp_backend,
)

logger = logging.getLogger(__name__)

# Options that change branch variances; a profile made with others is used, with a warning.
PROFILED_OPTIONS = (
    *COMPUTED_BY,
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "decoder_embed_dim",
    "decoder_ffn_embed_dim",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "relu_dropout",
    "parameter_init",
    "layernorm_embedding",
    "encoder_learned_pos",
    "decoder_learned_pos",
    "quant_noise_pq",
)


@dataclass
class ProfileOptions(FairseqDataclass):
    """How to profile."""

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


@dataclass
class ProfiledConfig(ProfileOptions):
    """Base, beside the task's own, of the config of a task with :class:`ProfiledTask`."""

    seed: int = II("common.seed")
    # all of these: what fairseq-train is about to do with the model
    checkpoint: Any = II("checkpoint")
    common: Any = II("common")
    dataset: Any = II("dataset")
    distributed_training: Any = II("distributed_training")
    optimization: Any = II("optimization")


class ProfiledTask:
    """Mixin of a task, before fairseq's class among the bases: new models of `transformer_admin`
    are profiled and get their omegas in `build_model`, before the optimizer, the fp16 master
    copies, data parallel wrapping and EMA take copies of them.

    A task of the time before hydra, which has ``args`` instead of ``cfg``, gets its options too.
    """

    @classmethod
    def add_args(cls, parser) -> None:
        """As fairseq's; raises UserError for --bf16."""
        super().add_args(parser)
        if getattr(cls, "__dataclass", None) is None:
            gen_parser_from_dataclass(parser, ProfileOptions())
        check_bf16(parser)

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """As fairseq's; raises UserError for parameters that are to be sharded."""
        check_sharding(cfg)
        return super().setup_task(cfg, **kwargs)

    @property
    def options(self) -> Any:
        """The task's options, whether fairseq calls them cfg or args."""
        return self.args if self.cfg is None else self.cfg

    def build_model(self, cfg, from_checkpoint: bool = False):
        """As fairseq's, but a model that is neither from a checkpoint nor about to be restored from
        one gets its omegas, and a training that is finished ends here. Raises UserError for what no
        training can be, for options of a profile where there is none, and for a checkpoint that is
        cut off or of another method."""
        path, finished = None, False
        if not from_checkpoint and ddp_backend(self.options):
            self.check_training(cfg)
            text = self.state_dict().get("text")
            path, finished = from_rank_0(lambda: find_checkpoint(self.options, cfg, text))
        if finished:
            logger.info("training is finished already, by %s: nothing to do", path)
            end_training(group(self.options, "common"))
        model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint:
            check_options(self.options, model)
        if path:
            logger.info("the model is that of %s: nothing is profiled", path)
        elif not from_checkpoint and profiled(model):
            self.initialize_omegas(model, cfg)
        elif not any(named_junctions(model).values()):
            logger.warning("%s has no omegas to set", type(model).__name__)
        return model

    def check_training(self, cfg) -> None:
        """Raise UserError for a training of the model *cfg* that cannot be."""
        check_training(self.options, cfg)

    def initialize_omegas(self, model, cfg) -> None:
        """Set the omegas of *model* by the profile of rank 0, and keep it in the task state."""
        profile = from_rank_0(lambda: self.make_profile(model, cfg).to_dict())
        self.state.merge_state_dict({"profile": profile})
        apply_profile(model, Profile.from_dict(profile))
        model.omegas_set = True
        logger.info("omegas\n%s", Profile.from_dict(profile).table())

    def make_profile(self, model, cfg) -> Profile:
        """The profile of the omega file or, without one, of a forward pass over training text."""
        values = as_dict(cfg)
        options = {name: values[name] for name in PROFILED_OPTIONS if name in values}
        if self.options.omega_file:
            check_options(self.options, model)
            names = profiled(model)
            profile = read_profile(self.options.omega_file, names)
            made = profile.meta.get("residual")
            for stack in filter(names.get, names if made else ()):
                if by_stack(str(made))[stack] != by_stack(values["residual"])[stack]:
                    raise UserError(
                        f"{self.options.omega_file} is a profile of {title(made)}, not of "
                        f"{title(values['residual'])}"
                    )
            warn_of_differences(profile, options)
            keep_first_at_1(profile, model)
            return profile
        check_noise(cfg)
        seed = self.options.profile_seed
        seed = self.options.seed if seed is None else seed
        batches = self.profile_batches(model, seed)
        net_inputs = [batch["net_input"] for batch in batches]
        check_symbols(net_inputs, model)
        profile = profile_model(model, net_inputs, self.source_dictionary.pad(), seed)
        of_model = ("residual", "encoder_layers", "decoder_layers")
        profile.meta = {
            "arch": values["_name"],
            **{name: values[name] for name in of_model if name in values},
            **options,
            "seed": seed,
            "profile_tokens": self.options.profile_tokens,
            "sentences": sum(len(batch["id"]) for batch in batches),
            "source_tokens": sum(int(x["src_lengths"].sum()) for x in net_inputs),
            "target_tokens": sum(int(batch["ntokens"]) for batch in batches),
            "versions": {  # that a profile depends on
                "fairseq": fairseq.__version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        }
        return profile

    def profile_batches(self, model, seed: int) -> List[Dict[str, Any]]:
        """What to profile: batches of training sentences as fairseq collates them, by
        :func:`draw_batches`. A task whose text is not in `--train-subset` overrides this."""
        split = self.options.train_subset
        self.load_dataset(split, epoch=1, combine=True)
        dataset = self.datasets.pop(split)  # the trainer loads it anew
        limits = utils.resolve_max_positions(self.max_positions(), model.max_positions())
        return draw_batches(dataset, self.options.profile_tokens, limits, seed)

    def get_checkpoint_dict(self) -> Dict[str, Any]:
        """The task state for fairseq's resume, which does not read that of the checkpoint."""
        return {type(self).__name__: self.state_dict()}

    def set_checkpoint_dict(self, saved: Dict[str, Any]) -> None:
        """Take the profile of the checkpoint that training goes on from."""
        self.state.merge_state_dict(saved)


def check_options(options: Any, model: Any) -> None:
    """Raise UserError for options of a profile where the method of *model* needs none."""
    residual = getattr(getattr(model, "cfg", None), "residual", None)
    told = f"--residual {residual}" if residual else type(model).__name__
    for name in ProfileOptions.__annotations__:  # its own: hydra fills in FairseqDataclass's _name
        if getattr(options, name) != getattr(ProfileOptions, name) and not profiled(model):
            raise UserError(
                f"--{name.replace('_', '-')} means nothing to {told}, which is not profiled: leave "
                "it out"
            )
