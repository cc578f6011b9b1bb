"""Names of what a figure compares: arguments of the form `[LABEL=]PATH`."""

import os
from typing import Callable, Dict, List

from fairseq_admin.errors import UserError


def labelled(given: List[str], name: Callable[[str], str]) -> Dict[str, str]:
    """Path by label of the arguments *given*; *name* calls a path that has no label.

    Raises:
        UserError: where two have one label.
    """
    paths: Dict[str, str] = {}
    for argument in given:
        label, equals, path = argument.partition("=")
        if not (equals and label) or os.path.exists(argument):
            label, path = name(argument), argument
        if label in paths:
            raise UserError(f"{paths[label]} and {path} are both {label}: write LABEL={path}")
        paths[label] = path
    return paths
