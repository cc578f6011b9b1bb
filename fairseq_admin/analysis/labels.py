"""Names of what a figure compares: arguments of the form `[LABEL=]PATH`, and short paths."""

import os
from typing import Callable, Dict, List

from fairseq_admin.errors import UserError
from fairseq_admin.text import printable


def labelled(given: List[str], name: Callable[[str], str]) -> Dict[str, str]:
    """The path of each label in the arguments *given*; *name* makes the label of a path that has
    none. Raises UserError where two paths have the same label."""
    paths: Dict[str, str] = {}
    for argument in given:
        label, equals, path = argument.partition("=")
        if not (equals and label) or os.path.exists(argument):
            label, path = name(argument), argument
        label = printable(label)
        if label in paths:
            raise UserError(f"{paths[label]} and {path} are both {label}: write LABEL={path}")
        paths[label] = path
    return paths


def shortest(paths: List[str]) -> List[str]:
    """The last part of each path; where two have the same, as many parts as tell them apart."""
    parts = [os.path.realpath(path).strip(os.sep).split(os.sep) for path in paths]
    named = []
    for path in parts:
        others = [other for other in parts if other is not path]
        count = 1
        while count < len(path) and any(path[-count:] == other[-count:] for other in others):
            count += 1
        named.append("/".join(path[-count:]))
    return named
