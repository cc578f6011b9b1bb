"""The named sublayers of a fairseq encoder-decoder, and the one way in which probes attach."""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, Dict, Iterator, List, Optional, Union

from torch import Tensor, nn

from fairseq_admin.errors import UserError
from fairseq_admin.methods import STACKS
from fairseq_admin.profiling import in_mode, seeded
from fairseq_admin.residuals.residual import NORMS, Residual

BRANCHES = {"self_attn": ["self_attn"], "encoder_attn": ["encoder_attn"], "ffn": ["fc1", "fc2"]}


@dataclass
class Sublayer:
    """One residual sublayer of a layer."""

    name: str  # as in a profile, for example decoder.layers.0.encoder_attn
    kind: str  # a key of BRANCHES
    layer: nn.Module
    norm: Optional[nn.Module]  # the layer's own; none in ReZero
    pre_ln: bool
    junction: Optional[Residual] = None  # of our layers
    weights: Dict[str, nn.Parameter] = field(default_factory=dict)  # matrices of the branch

    @property
    def scale(self) -> Union[float, Tensor]:
        """What multiplies the shortcut; a tensor is `(embed_dim,)`."""
        return 1.0 if self.junction is None else self.junction.shortcut_scale

    @property
    def post_norm(self) -> Optional[nn.Module]:
        """The norm that the sum goes through; None where the next shortcut is the sum itself."""
        return None if self.pre_ln else self.norm


@dataclass
class Passage:
    """What a batch is as it passes a sublayer, each `(seq_len, batch, embed_dim)`."""

    sublayer: Sublayer
    valid: Tensor  # true where a token stands, `(seq_len, batch)`
    shortcut: Tensor  # x_{i-1}
    total: Tensor  # shortcut * scale + added
    output: Tensor  # x_i: what the post norm makes of the total; the total where there is none

    @property
    def added(self) -> Tensor:
        """What the branch gave to the sum, with dropout where the model is in training mode:
        f_i(x_{i-1}), of ReZero a * f_i(x_{i-1})."""
        return self.total - self.shortcut * self.sublayer.scale

    def tell_gradient(self, take: Callable[[float], None]) -> None:
        """Call *take* with the norm of the output's gradient over tokens, once there is one."""
        self.output.register_hook(lambda x: take(x[self.valid].float().norm().item()))


def named_sublayers(model: nn.Module) -> Dict[str, List[Sublayer]]:
    """The model's sublayers by stack, in order of execution. Raises UserError for a model that is
    not made of attention and FFN sublayers with a norm each."""
    stacks = {}
    for stack in STACKS:
        layers = getattr(getattr(model, stack, None), "layers", None)
        if layers is None or len(layers) == 0:
            raise UserError(f"{type(model).__name__} has no {stack} layers to look at")
        stacks[stack] = [
            sublayer_of(layer, f"{stack}.layers.{i}", kind)
            for i, layer in enumerate(layers._modules.values())  # LayerDrop's iterator drops some
            for kind in BRANCHES
            if getattr(layer, kind, None) is not None or kind == "ffn"
        ]
    return stacks


def sublayer_of(layer: nn.Module, name: str, kind: str) -> Sublayer:
    """The sublayer *kind* of *layer*, which is called *name*."""
    junction = getattr(layer, f"{kind}_residual", None)
    parts = BRANCHES[kind] if junction else [NORMS[kind], *BRANCHES[kind]]
    if not all(isinstance(getattr(layer, part, None), nn.Module) for part in parts):
        raise UserError(
            f"{name} ({type(layer).__name__}) has no sublayer {kind}: {NORMS[kind]} and its "
            "branch are looked for, as fairseq's Transformer layers name them"
        )
    if getattr(layer, "w_resid", None) is not None:
        raise UserError(f"{name} scales its shortcut by scale_resids, which no analysis knows")
    weights = {
        f"{part}.{parameter}" if kind == "ffn" else parameter: weight
        for part in BRANCHES[kind]
        for parameter, weight in getattr(layer, part).named_parameters()
        if weight.dim() > 1
    }
    norm, pre_ln = getattr(layer, NORMS[kind]), bool(layer.normalize_before)
    return Sublayer(f"{name}.{kind}", kind, layer, norm, pre_ln, junction, weights)


@contextmanager
def attached(
    model: nn.Module,
    net_input: Dict[str, Tensor],
    pad: int,
    observe: Callable[[str, Passage], None],
) -> Iterator[Dict[str, List[Sublayer]]]:
    """Within the block a forward pass of *net_input* calls `observe(stack, passage)` at each
    sublayer, in order of execution; the hooks are gone after it, also after an exception. Tokens
    that are *pad* are no part of a passage's ``valid``."""
    tokens = {"encoder": net_input["src_tokens"], "decoder": net_input["prev_output_tokens"]}
    with ExitStack() as hooks:
        stacks = named_sublayers(model)
        for stack, sublayers in stacks.items():
            valid = tokens[stack].ne(pad).t()
            streams = {s.layer: _Stream(partial(observe, stack), valid) for s in sublayers}
            for sublayer in sublayers:
                for handle in streams[sublayer.layer].hooks(sublayer):
                    hooks.callback(handle.remove)
        yield stacks


class _Stream:
    """Follows the residual stream through one layer: by what junctions get and give, in fairseq's
    own layers by what norms read and write."""

    def __init__(self, observe: Callable[[Passage], None], valid: Tensor) -> None:
        self.observe, self.valid = observe, valid
        self.x: Optional[Tensor] = None  # what the next sublayer's shortcut carries
        self.open: Optional[Sublayer] = None  # a Pre-LN sublayer whose sum was not seen yet

    def hooks(self, sublayer: Sublayer) -> list:
        """Register what follows *sublayer*; the handles."""
        if sublayer.junction is not None:
            return [sublayer.junction.register_forward_hook(partial(self.joined, sublayer))]
        handles = []
        if sublayer.kind == "self_attn":  # the first of its layer
            handles.append(sublayer.layer.register_forward_pre_hook(self.enter))
            handles.append(sublayer.layer.register_forward_hook(self.leave))
        if sublayer.pre_ln:
            hook = partial(self.before, sublayer)
            return [*handles, sublayer.norm.register_forward_pre_hook(hook)]
        return [*handles, sublayer.norm.register_forward_hook(partial(self.after, sublayer))]

    def joined(self, sublayer: Sublayer, junction: Residual, inputs: tuple, output: Tensor) -> None:
        """A junction has given *output* for shortcut and branch."""
        shortcut, branch, _ = inputs
        total = output if sublayer.post_norm is None else junction.add(shortcut, branch)
        self.observe(Passage(sublayer, self.valid, shortcut, total, output))

    def enter(self, layer: nn.Module, inputs: tuple) -> None:
        self.x, self.open = inputs[0], None
        if not isinstance(self.x, Tensor):
            raise UserError(f"{type(layer).__name__} reads more than one stream: not known here")

    def after(self, sublayer: Sublayer, norm: nn.Module, inputs: tuple, output: Tensor) -> None:
        """A Post-LN norm has read the sum."""
        self.observe(Passage(sublayer, self.valid, self.x, inputs[0], output))
        self.x = output

    def before(self, sublayer: Sublayer, norm: nn.Module, inputs: tuple) -> None:
        """A Pre-LN norm reads the sum of the sublayer before."""
        self.close(inputs[0])
        self.open = sublayer

    def leave(self, layer: nn.Module, inputs: tuple, output) -> None:
        self.close(output[0] if isinstance(output, tuple) else output)

    def close(self, total: Tensor) -> None:
        if self.open is not None:
            self.observe(Passage(self.open, self.valid, self.x, total, total))
            self.x, self.open = total, None


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and seeded random numbers; modes and random states are as before after it."""
    with seeded(1), in_mode(model, training=False):
        yield
