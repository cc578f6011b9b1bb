"""Encoder and decoder layers that ask a named junction what enters and what leaves a branch."""

from typing import Any, Dict, Optional

import torch
from fairseq.modules.transformer_layer import (
    TransformerDecoderLayerBase,
    TransformerEncoderLayerBase,
)
from torch import Tensor, nn

from fairseq_admin.methods import junctions_of
from fairseq_admin.residuals.residual import NORMS, Place

METHOD_OPTIONS = ("learn_first_omega", "output_change")  # of single methods


def init_feed_forward_(layer: nn.Module) -> None:
    """The parameter initialization of the paper's code: FFN weights from xavier_uniform, zero
    biases (fairseq since 0.9 leaves ``nn.Linear``'s default, with a fifth of the variance)."""
    for linear in (layer.fc1, layer.fc2):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)


def layers_of(cfg: Any) -> Dict[str, int]:
    """Layers of each stack of a `TransformerConfig`."""
    return {"encoder": cfg.encoder.layers, "decoder": cfg.decoder.layers}


def place_of(cfg: Any, stack: str) -> Place:
    """Where the junctions of a *stack* stand in the model of a `TransformerConfig`; of a pruned
    model in the one that was trained."""
    layers = getattr(cfg, "trained_layers", None) or layers_of(cfg)
    kinds = 2 if stack == "encoder" or cfg.no_cross_attention else 3
    return Place(
        getattr(cfg, stack).embed_dim,
        stack,
        layers,
        kinds * layers[stack],
        {name: getattr(cfg, name) for name in METHOD_OPTIONS},
    )


def add_junctions(layer: nn.Module, cfg: Any, stack: str) -> None:
    """Give a new *layer* of fairseq its junctions, and the parameters that it is to start from."""
    kind, place = junctions_of(cfg.residual)[stack], place_of(cfg, stack)
    junctions = {
        name: kind(place)
        for name in NORMS
        if name == "ffn" or getattr(layer, name, None) is not None
    }
    for name, junction in junctions.items():
        layer.add_module(f"{name}_residual", junction)
    if cfg.parameter_init == "paper":
        init_feed_forward_(layer)
    kind.prepare_(layer, junctions, place)


class ResidualEncoderLayer(TransformerEncoderLayerBase):
    """Encoder layer: self-attention, then the FFN, each between the two sides of its junction.

    Args:
        cfg: a `TransformerConfig` that also holds the options of `transformer_admin`.
        return_fc: also return the FFN's output, as fairseq's layer does.
    """

    def __init__(self, cfg, return_fc: bool = False) -> None:
        super().__init__(cfg, return_fc=return_fc)
        add_junctions(self, cfg, "encoder")

    def forward(
        self,
        x: Tensor,
        encoder_padding_mask: Optional[Tensor],
        attn_mask: Optional[Tensor] = None,
    ):
        """fairseq/modules/transformer_layer.py (0.12.3); junctions say where the norms are.

        Args:
            x: `(seq_len, batch, embed_dim)`.
            encoder_padding_mask: true at padding, `(batch, seq_len)`.
            attn_mask: nonzero where attention is forbidden, `(seq_len, seq_len)`.

        Returns:
            `(seq_len, batch, embed_dim)`; with *return_fc* a pair of that and the FFN's output.
        """
        if attn_mask is not None:  # finite, so that no row of the softmax is all -inf
            low = -1e8 if x.dtype == torch.float32 else -1e4
            attn_mask = attn_mask.masked_fill(attn_mask.to(torch.bool), low)

        norm = self.self_attn_layer_norm
        entered = self.self_attn_residual.enter(x, norm)
        branch, _ = self.self_attn(
            query=entered,
            key=entered,
            value=entered,
            key_padding_mask=encoder_padding_mask,
            need_weights=False,
            attn_mask=attn_mask,
        )
        x = self.self_attn_residual(x, self.dropout_module(branch), norm)

        norm = self.final_layer_norm
        entered = self.ffn_residual.enter(x, norm)
        branch = self.fc2(self.activation_dropout_module(self.activation_fn(self.fc1(entered))))
        x = self.ffn_residual(x, self.dropout_module(branch), norm)
        return (x, branch) if self.return_fc else x


class ResidualDecoderLayer(TransformerDecoderLayerBase):
    """Decoder layer: self-attention, cross-attention and FFN, each as in the encoder.

    Args:
        cfg: a `TransformerConfig` that also holds the options of `transformer_admin`.
        no_encoder_attn: build the layer without cross-attention.
    """

    def __init__(self, cfg, no_encoder_attn: bool = False) -> None:
        super().__init__(cfg, no_encoder_attn)
        add_junctions(self, cfg, "decoder")

    def forward(
        self,
        x: Tensor,
        encoder_out: Optional[Tensor] = None,
        encoder_padding_mask: Optional[Tensor] = None,
        incremental_state: Optional[Dict[str, Dict[str, Optional[Tensor]]]] = None,
        self_attn_mask: Optional[Tensor] = None,
        self_attn_padding_mask: Optional[Tensor] = None,
        need_attn: bool = False,
        need_head_weights: bool = False,
    ):
        """fairseq/modules/transformer_layer.py (0.12.3) without NormFormer, ONNX and states
        that are given from outside.

        Args:
            x: `(tgt_len, batch, embed_dim)`.
            encoder_out: `(src_len, batch, encoder_embed_dim)`.
            encoder_padding_mask: true at padding, `(batch, src_len)`.
            incremental_state: keys and values of the steps before, for incremental decoding.
            self_attn_mask: added to the scores, `(tgt_len, tgt_len)`.
            self_attn_padding_mask: true at padding, `(batch, tgt_len)`.
            need_attn: return cross-attention weights, averaged over heads.
            need_head_weights: return them for each head.

        Returns:
            output `(tgt_len, batch, embed_dim)`, attention weights or None, None.
        """
        need_attn = need_attn or need_head_weights

        norm = self.self_attn_layer_norm
        entered = memory = self.self_attn_residual.enter(x, norm)
        cached = incremental_state and self.self_attn._get_input_buffer(incremental_state)
        if self.cross_self_attention and "prev_key" not in (cached or {}):
            memory = torch.cat((encoder_out, entered), dim=0)
            self_attn_mask, self_attn_padding_mask = masks_over_memory(
                x, encoder_out, encoder_padding_mask, self_attn_mask, self_attn_padding_mask
            )
        branch, attn = self.self_attn(
            query=entered,
            key=memory,
            value=memory,
            key_padding_mask=self_attn_padding_mask,
            incremental_state=incremental_state,
            need_weights=False,
            attn_mask=self_attn_mask,
        )
        x = self.self_attn_residual(x, self.dropout_module(branch), norm)

        if self.encoder_attn is not None and encoder_out is not None:
            need_weights = need_attn or (not self.training and self.need_attn)
            norm = self.encoder_attn_layer_norm
            branch, attn = self.encoder_attn(
                query=self.encoder_attn_residual.enter(x, norm),
                key=encoder_out,
                value=encoder_out,
                key_padding_mask=encoder_padding_mask,
                incremental_state=incremental_state,
                static_kv=True,
                need_weights=need_weights,
                need_head_weights=need_head_weights,
            )
            x = self.encoder_attn_residual(x, self.dropout_module(branch), norm)

        norm = self.final_layer_norm
        entered = self.ffn_residual.enter(x, norm)
        branch = self.fc2(self.activation_dropout_module(self.activation_fn(self.fc1(entered))))
        return self.ffn_residual(x, self.dropout_module(branch), norm), attn, None


# by which --retain-dropout-modules of fairseq-generate finds them
ResidualEncoderLayer.__name__ = TransformerEncoderLayerBase.__name__
ResidualDecoderLayer.__name__ = TransformerDecoderLayerBase.__name__


def masks_over_memory(x, encoder_out, encoder_padding_mask, attn_mask, padding_mask):
    """Masks of cross+self-attention, whose keys are the source positions, then the target's.

    Shapes as in :meth:`ResidualDecoderLayer.forward`; returns masks that are `src_len` wider.
    """
    src_len, batch = encoder_out.shape[:2]
    if attn_mask is not None:
        attn_mask = torch.cat((x.new_zeros(x.size(0), src_len), attn_mask), dim=1)
    if padding_mask is not None:
        if encoder_padding_mask is None:
            encoder_padding_mask = padding_mask.new_zeros(batch, src_len)
        padding_mask = torch.cat((encoder_padding_mask, padding_mask), dim=1)
    return attn_mask, padding_mask


def compile_layers(model: nn.Module) -> None:
    """`torch.compile` each layer of *model*, in place, so that names in checkpoints stay."""
    from torch._dynamo import config as dynamo  # it takes long

    # the layers of a stack are one code object, compiled for the first, others and the last, with
    # padding and without; and one of them is too small to be split for DDP's buckets
    dynamo.cache_size_limit = max(dynamo.cache_size_limit, 64)
    dynamo.optimize_ddp = False
    for stack in (model.encoder, model.decoder):
        for layer in stack.layers._modules.values():  # LayerDrop's own iterator leaves some out
            layer.compile(dynamic=True)
