"""What the methods are called."""

from typing import Sequence

NAMES = {"admin": "Admin", "post-ln": "Post-LN", "pre-ln": "Pre-LN"}  # for a reader


def method_of(has_omegas: bool, pre_ln: Sequence[bool]) -> str:
    """A key of NAMES for a model; the encoder's and the decoder's with a slash where they differ.

    Args:
        has_omegas: its shortcuts are scaled.
        pre_ln: of each stack, whether norms come before the sublayers.
    """
    if has_omegas:
        return "admin"
    return "/".join(dict.fromkeys("pre-ln" if before else "post-ln" for before in pre_ln))


def title(method: str) -> str:
    """*method* for a reader."""
    return "/".join(NAMES.get(part, part) for part in method.split("/"))
