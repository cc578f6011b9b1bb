"""transformer_admin: fairseq's Transformer with an omega at every residual junction."""

import logging
from argparse import Namespace
from dataclasses import field, fields, is_dataclass, make_dataclass
from typing import Any, Dict, List, Optional, Tuple

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
from fairseq_admin.layers import AdminDecoderLayer, AdminEncoderLayer
from fairseq_admin.omega_file import STACKS
from fairseq_admin.training_checks import PRUNED

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

OWN_OPTIONS = [
    (
        "learn_first_omega",
        bool,
        field(
            default=False,
            metadata={
                "help": "train the first omega of each stack too, instead of keeping it at 1 (a "
                "folded model then needs untied embeddings and learned positions); keep it as it "
                "is when resuming"
            },
        ),
    ),
    (
        "parameter_init",
        ChoiceEnum(["paper", "fairseq"]),
        field(
            default="paper",
            metadata={
                "help": "paper: FFN weights from xavier_uniform with zero biases, as in the code "
                "behind the published numbers; fairseq: nn.Linear's default"
            },
        ),
    ),
]


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


TransformerAdminConfig = make_dataclass(
    "TransformerAdminConfig", flat_fields() + OWN_OPTIONS, bases=(FairseqDataclass,)
)
TransformerAdminConfig.__module__ = __name__
TransformerAdminConfig.__doc__ = """Options of `transformer_admin`: all of fairseq's `transformer`,
under the same flat names on the command line and in hydra, and two of its own."""


def nested_config(cfg) -> TransformerConfig:
    """fairseq's nested config from the flat one, a DictConfig, dataclass or Namespace."""
    if isinstance(cfg, TransformerConfig):
        return cfg
    if OmegaConf.is_config(cfg):
        values: Dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    else:
        root = OmegaConf.create({"model": dict(vars(cfg))})
        values = OmegaConf.to_container(root, resolve=True, enum_to_str=True)["model"]
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
    """fairseq's encoder made of :class:`AdminEncoderLayer`."""

    def __init__(self, cfg, dictionary, embed_tokens, return_fc: bool = False) -> None:
        super().__init__(cfg, dictionary, embed_tokens, return_fc=return_fc)
        if not cfg.learn_first_omega and len(self.layers) > 0:
            self.layers[0].self_attn_residual.freeze()

    def build_encoder_layer(self, cfg) -> nn.Module:
        return wrapped(AdminEncoderLayer(cfg, return_fc=self.return_fc), cfg)


class TransformerAdminDecoder(TransformerDecoderBase):
    """fairseq's decoder made of :class:`AdminDecoderLayer`."""

    def __init__(self, cfg, dictionary, embed_tokens, **kwargs) -> None:
        super().__init__(cfg, dictionary, embed_tokens, **kwargs)
        if not cfg.learn_first_omega and len(self.layers) > 0:
            self.layers[0].self_attn_residual.freeze()

    def build_decoder_layer(self, cfg, no_encoder_attn: bool = False) -> nn.Module:
        return wrapped(AdminDecoderLayer(cfg, no_encoder_attn), cfg)


class TransformerAdminModel(TransformerModelBase):
    """Post-LN Transformer with ``x = LN(x * omega + f(x))`` (Liu et al. 2020).

    Omegas are 1 until the task `translation_admin` profiles the model or a checkpoint is loaded.

    Raises:
        UserError: for Pre-LN options, and for a checkpoint of another depth or another model.
    """

    omegas_set = False  # by a profile, an omega file or a checkpoint

    @classmethod
    def add_args(cls, parser) -> None:
        """Add the model's options; defaults stay out, so that an architecture can set them."""
        gen_parser_from_dataclass(parser, getattr(cls, "__dataclass")(), delete_default=True)

    @classmethod
    def build_model(cls, cfg, task):
        cfg = nested_config(cfg)
        if cfg.encoder.normalize_before or cfg.decoder.normalize_before:
            raise UserError(
                "transformer_admin is Post-LN: leave out --encoder-normalize-before and "
                "--decoder-normalize-before, or train Pre-LN with --arch transformer"
            )
        return super().build_model(cfg, task)

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
        if num_updates == 0 and (
            self.cfg.encoder.layers_to_keep or self.cfg.decoder.layers_to_keep
        ):
            raise UserError(PRUNED)
        if num_updates == 0 and not self.omegas_set:
            self.omegas_set = True  # say it once
            if get_global_rank() == 0:
                logger.warning(
                    "NO OMEGA WAS PROFILED: this task does not profile, every omega is 1, and the "
                    "model is an ordinary Post-LN Transformer. Train with --task translation_admin."
                )

    def load_state_dict(self, state_dict, strict=True, model_cfg=None, args=None):
        """As fairseq's; a checkpoint that does not fit is one line instead of a list of keys."""
        layers_kept = any(getattr(model_cfg, f"{s}_layers_to_keep", None) for s in STACKS)
        if strict and not layers_kept:
            check_fit(self.state_dict(), state_dict)
        self.omegas_set = True
        return super().load_state_dict(state_dict, strict, model_cfg, args)


def depths(state_dict) -> Dict[str, int]:
    """Number of layers of each stack in a state dict."""
    layers = {stack: set() for stack in STACKS}
    for key in state_dict:
        stack, _, rest = key.partition(".layers.")
        if rest and stack in layers:
            layers[stack].add(rest.split(".")[0])
    return {stack: len(found) for stack, found in layers.items()}


def check_fit(own, given) -> None:
    """Raise UserError where the state dict *given* is of another depth, width or model."""
    if depths(own) != depths(given):
        raise UserError(
            "the checkpoint is of another depth: it has {encoder}-{decoder} layers".format(
                **depths(given)
            )
            + ", the model has {encoder}-{decoder}; build the model with the depth of the "
            "checkpoint, or give another --save-dir".format(**depths(own))
        )
    if not any(key.endswith(".omega") for key in given):
        raise UserError(
            "the checkpoint holds no omega: it is not of transformer_admin; load it with its own "
            "--arch, or give another --save-dir"
        )
    for key in own:
        if key in given and own[key].shape != given[key].shape:
            raise UserError(
                f"the checkpoint is of another size: {key} is {tuple(given[key].shape)} there and "
                f"{tuple(own[key].shape)} in the model; give the checkpoint's sizes and dictionary"
            )
