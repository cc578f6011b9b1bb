"""transformer_admin: fairseq's Transformer with a residual method of your choice."""

import copy
import logging
from argparse import Namespace
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from typing import Any, List, Optional, Tuple

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.distributed import fsdp_wrap
from fairseq.distributed.utils import get_global_rank
from fairseq.models.transformer import (
    TransformerConfig,
    TransformerDecoderBase,
    TransformerEncoderBase,
    TransformerModelBase,
)
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from omegaconf import II, OmegaConf
from torch import nn

from fairseq_admin.errors import UserError
from fairseq_admin.fit import check_fit, check_keys
from fairseq_admin.layers import (
    METHOD_OPTIONS,
    ResidualDecoderLayer,
    ResidualEncoderLayer,
    compile_layers,
    layers_of,
)
from fairseq_admin.methods import METHODS, STACKS, junctions_of
from fairseq_admin.options import as_dict
from fairseq_admin.profiling import profiled
from fairseq_admin.training_checks import PRUNED, check_numbers

logger = logging.getLogger(__name__)

# Of fairseq's own options, those whose default or type its flat `transformer` has otherwise than
# its TransformerConfig says.
LIKE_FLAT_TRANSFORMER = {
    "encoder_layers_to_keep": (Optional[str], None),
    "decoder_layers_to_keep": (Optional[str], None),
    "decoder_embed_dim": (int, II("model.encoder_embed_dim")),
    "decoder_ffn_embed_dim": (int, II("model.encoder_ffn_embed_dim")),
    "decoder_input_dim": (int, II("model.decoder_embed_dim")),
    "decoder_output_dim": (int, II("model.decoder_embed_dim")),
}


def flat_fields(config: type = TransformerConfig, prefix: str = "") -> List[Tuple[str, Any, Any]]:
    """Fields of *config* and of the dataclasses in it, named as `fairseq-train` names them:
    ``encoder.embed_dim`` becomes ``encoder_embed_dim``."""
    flat = []
    for f in fields(config):
        if f.name.startswith("_"):
            continue
        name = prefix + f.name
        if is_dataclass(f.type):
            flat += flat_fields(f.type, f"{name}_")
        else:
            kind, default = LIKE_FLAT_TRANSFORMER.get(name, (f.type, f.default))
            help_text = f.metadata.get("help", f"see {TransformerConfig.__name__} of fairseq")
            flat.append((name, kind, field(default=default, metadata={"help": help_text})))
    return flat


FlatConfig = make_dataclass("FlatConfig", flat_fields(), bases=(FairseqDataclass,))


@dataclass
class TransformerAdminConfig(FlatConfig):
    """Options of `transformer_admin`: all of fairseq's `transformer`, under the same flat names on
    the command line and in hydra, and its own."""

    residual: str = field(
        default="admin",
        metadata={
            "help": f"the residual method: {', '.join(METHODS)}; ENCODER/DECODER where the "
            "stacks differ"
        },
    )
    learn_first_omega: bool = field(
        default=False,
        metadata={
            "help": "admin: train the first omega of each stack too, not keep it at 1 (a "
            "folded model then needs untied embeddings and learned positions); keep it as it "
            "is when resuming"
        },
    )
    parameter_init: ChoiceEnum(["paper", "fairseq"]) = field(
        default="paper",
        metadata={
            "help": "paper: FFN weights from xavier_uniform with zero biases, as in the code "
            "behind the published numbers; fairseq: nn.Linear's default"
        },
    )
    output_change: ChoiceEnum(["log", "constant"]) = field(
        default="log",
        metadata={"help": "analytic: how a stack's output change is to grow with its depth"},
    )
    compile_layers: bool = field(
        default=False, metadata={"help": "torch.compile each layer, after the profile"}
    )


# of the options that are its own
DEFAULTS = {
    name: getattr(TransformerAdminConfig, name) for name in TransformerAdminConfig.__annotations__
}


def nested_config(cfg) -> TransformerConfig:
    """fairseq's nested config from the flat one, a DictConfig, dataclass or Namespace."""
    if isinstance(cfg, TransformerConfig):
        return copy.deepcopy(cfg)  # building writes into it
    if not OmegaConf.is_config(cfg):
        cfg = OmegaConf.create({"model": dict(vars(cfg))}).model  # where interpolations look
    values = as_dict(cfg)
    for name, (kind, _) in LIKE_FLAT_TRANSFORMER.items():
        if kind is int:  # an interpolation that came through argparse resolves to a string
            values[name] = int(values[name])
    return TransformerConfig.from_namespace(Namespace(**values))


def wrapped(layer: nn.Module, cfg: TransformerConfig) -> nn.Module:
    """Activation checkpointing and FSDP around *layer*, as `build_encoder_layer` of
    fairseq/models/transformer/transformer_encoder.py (0.12.3) has them."""
    if cfg.checkpoint_activations:
        layer = checkpoint_wrapper(layer, offload_to_cpu=cfg.offload_activations)
    min_params = 0 if cfg.checkpoint_activations else cfg.min_params_to_wrap
    return fsdp_wrap(layer, min_num_params=min_params)


class TransformerAdminEncoder(TransformerEncoderBase):
    """fairseq's encoder made of :class:`ResidualEncoderLayer`."""

    def build_encoder_layer(self, cfg) -> nn.Module:
        return wrapped(ResidualEncoderLayer(cfg, return_fc=self.return_fc), cfg)


class TransformerAdminDecoder(TransformerDecoderBase):
    """fairseq's decoder made of :class:`ResidualDecoderLayer`."""

    def build_decoder_layer(self, cfg, no_encoder_attn: bool = False) -> nn.Module:
        return wrapped(ResidualDecoderLayer(cfg, no_encoder_attn), cfg)


# by which --retain-dropout-modules of fairseq-generate finds them
TransformerAdminEncoder.__name__ = TransformerEncoderBase.__name__
TransformerAdminDecoder.__name__ = TransformerDecoderBase.__name__


class TransformerAdminModel(TransformerModelBase):
    """Transformer whose residual method is an option; Admin's, ``x = LN(x * omega + f(x))`` (Liu et
    al. 2020), unless another is chosen. Admin's omegas are 1 until a task profiles the model or a
    checkpoint is loaded.

    Raises UserError for a method that does not exist, options that mean nothing to it, numbers that
    no model has, and a checkpoint of another depth, size or method.
    """

    omegas_set = False  # by a profile, an omega file or a checkpoint
    compiled = False

    @classmethod
    def add_args(cls, parser) -> None:
        """Add the model's options; defaults stay out, so that an architecture can set them."""
        gen_parser_from_dataclass(parser, getattr(cls, "__dataclass")(), delete_default=True)

    @classmethod
    def build_model(cls, cfg, task):
        cfg = nested_config(cfg)
        if cfg.encoder.normalize_before or cfg.decoder.normalize_before:
            raise UserError(
                "transformer_admin takes --residual pre-ln, or post-ln/pre-ln for the decoder "
                "alone, instead of --encoder-normalize-before and --decoder-normalize-before"
            )
        check_numbers(cfg)
        kinds = junctions_of(cfg.residual)
        for name in METHOD_OPTIONS:
            if getattr(cfg, name) != DEFAULTS[name] and not any(
                name in kind.options for kind in kinds.values()
            ):
                raise UserError(
                    f"--{name.replace('_', '-')} means nothing to --residual {cfg.residual}: leave "
                    "it out"
                )
        for stack, kind in kinds.items():
            getattr(cfg, stack).normalize_before = kind.pre_ln
        cfg.trained_layers = layers_of(cfg)  # fairseq prunes next
        try:
            model = super().build_model(cfg, task)
        except ValueError as error:  # of a method or of fairseq: options that contradict each other
            raise UserError(str(error)) from None
        for stack in (model.encoder, model.decoder):
            if len(stack.layers) > 0:
                stack.layers[0].self_attn_residual.be_first()
        return model

    @classmethod
    def build_encoder(cls, cfg, src_dict, embed_tokens):
        return TransformerAdminEncoder(cfg, src_dict, embed_tokens)

    @classmethod
    def build_decoder(cls, cfg, tgt_dict, embed_tokens):
        return TransformerAdminDecoder(
            cfg, tgt_dict, embed_tokens, no_encoder_attn=cfg.no_cross_attention
        )

    def set_num_updates(self, num_updates: int) -> None:
        super().set_num_updates(num_updates)
        if self.cfg.compile_layers and not self.compiled:  # training begins, or goes on
            self.compiled = True
            compile_layers(self)
        pruned = self.cfg.encoder.layers_to_keep or self.cfg.decoder.layers_to_keep
        if num_updates == 0 and pruned:
            raise UserError(PRUNED)
        if num_updates == 0 and not self.omegas_set and profiled(self):
            self.omegas_set = True  # say it once
            if get_global_rank() == 0:
                logger.warning(
                    "NO OMEGA WAS PROFILED: this task does not profile, every omega is 1, and the "
                    "model is an ordinary Post-LN Transformer. Train with --task translation_admin "
                    "in a new --save-dir."
                )

    def load_state_dict(self, state_dict, strict=True, model_cfg=None, args=None):
        """As fairseq's; a checkpoint that does not fit is one line instead of a list of keys."""
        layers_kept = any(getattr(model_cfg, f"{s}_layers_to_keep", None) for s in STACKS)
        if strict and not layers_kept:
            own, given = self.state_dict(), dict(state_dict)
            self.upgrade_state_dict(given)  # from the keys of older releases
            check_fit(own, given, self.cfg.residual)
            if model_cfg is not None:  # of a training or a decoder, not of the checkpoint itself
                check_keys(own, given)
        self.omegas_set = True
        return super().load_state_dict(state_dict, strict, model_cfg, args)
