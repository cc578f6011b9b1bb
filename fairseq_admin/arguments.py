"""The arguments of `fairseq-train`, as our commands take them too."""

import os
import sys
from typing import List, Optional

import fairseq_admin
from fairseq_admin.errors import UserError


def given(arguments: List[str], option: str) -> Optional[str]:
    """The value of *option* in *arguments*, `--option value` or `--option=value`."""
    for i, argument in enumerate(arguments):
        if argument == option:
            return arguments[i + 1] if i + 1 < len(arguments) else None
        if argument.startswith(f"{option}="):
            return argument.split("=", 1)[1]
    return None


def training_config(arguments: List[str]):
    """The configuration of `fairseq-train` with *arguments*; --task and --user-dir are filled in.

    Raises:
        UserError: for arguments without an architecture, for another task, and for what
            fairseq-train does not take.
    """
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    if given(arguments, "--arch") is None and given(arguments, "-a") is None:
        raise UserError("which model? give --arch, for example --arch transformer_admin")
    if given(arguments, "--task") not in (None, "translation_admin"):
        raise UserError("--task translation_admin is the only one here: leave --task out")
    arguments = [*arguments, "--task", "translation_admin"]
    user_dir = given(arguments, "--user-dir")
    if user_dir is None or os.path.basename(user_dir.rstrip("/")) == "fairseq_admin":
        # imported already: by any other spelling fairseq would not know it again
        arguments += ["--user-dir", fairseq_admin.__path__[0]]
    sys.argv[1:] = arguments  # fairseq looks there for --user-dir, whatever it is given
    parser = options.get_training_parser()
    parser.error = refuse  # its own prints the usage of all of fairseq-train
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser))


def refuse(message: str) -> None:
    """Raise UserError with what a parser of fairseq's found wrong."""
    raise UserError(f"{message} (of the options of fairseq-train)")
