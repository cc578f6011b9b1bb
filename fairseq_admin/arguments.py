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
    """The configuration of `fairseq-train` with *arguments*; --user-dir is filled in and, unless it
    is another that profiles, --task.

    Raises:
        UserError: for arguments without an architecture, for another task, and for what
            fairseq-train does not take.
    """
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.tasks import TASK_REGISTRY

    from fairseq_admin.profiled_task import ProfiledTask

    if given(arguments, "--arch") is None and given(arguments, "-a") is None:
        raise UserError("which model? give --arch, for example --arch transformer_admin")
    if given(arguments, "--task") is None:
        arguments = [*arguments, "--task", "translation_admin"]
    user_dir = given(arguments, "--user-dir")
    if user_dir is None or os.path.basename(user_dir.rstrip("/")) == "fairseq_admin":
        # imported already: by any other spelling fairseq would not know it again
        arguments = [*arguments, "--user-dir", fairseq_admin.__path__[0]]
    sys.argv[1:] = arguments  # fairseq looks there for --user-dir, whatever it is given
    parser = options.get_training_parser()
    parser.error = refuse  # its own prints the usage of all of fairseq-train
    found = options.parse_args_and_arch(parser)
    if not issubclass(TASK_REGISTRY[found.task], ProfiledTask):
        raise UserError(f"--task {found.task} does not profile: leave --task out")
    return convert_namespace_to_omegaconf(found)


def refuse(message: str) -> None:
    """Raise UserError with what a parser of fairseq's found wrong."""
    raise UserError(f"{message} (of the options of fairseq-train)")
