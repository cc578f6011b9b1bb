"""The residual methods: what they are called, and where their junctions are. Needs no torch."""

from importlib import import_module
from typing import Any, Dict, NamedTuple

from fairseq_admin.errors import UserError

STACKS = ("encoder", "decoder")


class Method(NamedTuple):
    """A residual method."""

    title: str  # for a reader
    colour: str  # in every figure; of Okabe and Ito, which colour-blind readers can tell apart
    junction: str  # dotted name of its class, a `residuals.residual.Residual`


METHODS = {  # by the value of --residual
    "admin": Method("Admin", "#0072B2", "fairseq_admin.residuals.admin.AdminResidual"),
    "analytic": Method("Analytic", "#56B4E9", "fairseq_admin.residuals.analytic.AnalyticResidual"),
    "deepnorm": Method("DeepNorm", "#CC79A7", "fairseq_admin.residuals.deepnorm.DeepNormResidual"),
    "rezero": Method("ReZero", "#E69F00", "fairseq_admin.residuals.rezero.ReZeroResidual"),
    "keel": Method("Keel", "#F0E442", "fairseq_admin.residuals.keel.KeelResidual"),
    "post-ln": Method("Post-LN", "#D55E00", "fairseq_admin.residuals.residual.Residual"),
    "pre-ln": Method("Pre-LN", "#009E73", "fairseq_admin.residuals.pre_ln.PreLNResidual"),
}


def by_stack(residual: str) -> Dict[str, str]:
    """The methods of encoder and decoder, keys of METHODS, between which a slash stands where they
    differ. Raises UserError for a method that does not exist."""
    parts = residual.split("/")
    for part in parts:
        if part not in METHODS or len(parts) > 2:
            raise UserError(
                f"--residual {residual}: give one of {', '.join(METHODS)}, or two of them as "
                "ENCODER/DECODER"
            )
    return {"encoder": parts[0], "decoder": parts[-1]}


def junctions_of(residual: str) -> Dict[str, type]:
    """The junction's class of each stack; UserError as :func:`by_stack`."""
    found = {}
    for stack, method in by_stack(residual).items():
        module, _, name = METHODS[method].junction.rpartition(".")
        found[stack] = getattr(import_module(module), name)
    return found


def architecture(method: str) -> str:
    """Name of the architecture whose default *method* is."""
    return f"transformer_{method.replace('-', '_')}"


def method_of(options: Dict[str, Any]) -> str:
    """The method of a model's flat *options*; the encoder's and the decoder's with a slash where
    they differ. fairseq's own `transformer` is Post-LN or Pre-LN."""
    arch = str(options.get("_name") or options.get("arch"))
    default = next((m for m in METHODS if arch == architecture(m)), None)
    if default is None and arch.startswith(architecture("admin")):
        default = "admin"
    if "residual" in options or default:
        methods = options.get("residual", default).split("/")
    else:
        before = [options.get(f"{stack}_normalize_before") for stack in STACKS]
        methods = ["pre-ln" if pre_ln else "post-ln" for pre_ln in before]
    return "/".join(dict.fromkeys(methods))


def title(method: str) -> str:
    """*method* for a reader."""
    parts = method.split("/")
    return "/".join(METHODS[part].title if part in METHODS else part for part in parts)
