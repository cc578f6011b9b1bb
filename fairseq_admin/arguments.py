"""The arguments of `fairseq-train`, as our commands take them too."""

import os
import sys
from typing import Any, List, Optional, Sequence

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


def hydra_config(folder: str, name: str, overrides: Sequence[str]) -> Any:
    """The whole configuration that `fairseq-hydra-train --config-dir FOLDER --config-name NAME`
    composes with *overrides*. Raises UserError for a config or a plugin that is not there, and for
    an override that fairseq does not know."""
    from fairseq.dataclass.initialize import add_defaults, hydra_init
    from fairseq.utils import import_user_module
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = os.path.join(os.path.abspath(folder), name)
    if not (os.path.isfile(path) or os.path.isfile(f"{path}.yaml")):
        raise UserError(f"no such config: {path}.yaml (--config-dir, --config-name)")
    GlobalHydra.instance().clear()
    hydra_init(name)
    try:
        with initialize_config_dir(os.path.abspath(folder), version_base="1.1"):
            config = compose(name, overrides=list(overrides))
        plugin = config.common.user_dir
        if plugin and os.path.basename(plugin.rstrip("/")) != "fairseq_admin":
            import_user_module(config.common)
        add_defaults(config)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        which = getattr(error, "override", None) or getattr(error, "full_key", None)
        where = name if which is None else f"{name}: {which}"
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from None
    except FileNotFoundError:
        raise UserError(f"no such folder: {config.common.user_dir} (common.user_dir)") from None
    return config


def training_config(arguments: List[str], any_task: bool = False):
    """The configuration of `fairseq-train` with *arguments*; --user-dir and --task are filled in
    where they are missing. Raises UserError for arguments without an architecture, for what
    fairseq-train does not take and, unless *any_task*, for a task that does not profile."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.tasks import TASK_REGISTRY
    from hydra.errors import HydraException

    from fairseq_admin.profiled_task import ProfiledTask

    if given(arguments, "--arch") is None and given(arguments, "-a") is None:
        raise UserError("which model? give --arch, for example --arch transformer_admin")
    if given(arguments, "--task") is None:
        arguments = [*arguments, "--task", "translation_admin"]
    user_dir = given(arguments, "--user-dir")
    if user_dir is None or os.path.basename(user_dir.rstrip("/")) == "fairseq_admin":
        # imported already: by any other spelling fairseq would not know it again
        arguments = [*arguments, "--user-dir", fairseq_admin.__path__[0]]
    elif not os.path.isdir(user_dir):
        raise UserError(f"no such folder: {user_dir} (--user-dir)")
    sys.argv[1:] = arguments  # fairseq looks there for --user-dir, whatever it is given
    parser = options.get_training_parser()
    parser.error = refuse  # its own prints the usage of all of fairseq-train
    try:
        found = options.parse_args_and_arch(parser)
    except SyntaxError as error:  # fairseq reads lists, as of --lr, as Python
        refuse(f"{error.text} is no list of numbers")
    if not (any_task or issubclass(TASK_REGISTRY[found.task], ProfiledTask)):
        raise UserError(f"--task {found.task} does not profile: leave --task out")
    try:
        return convert_namespace_to_omegaconf(found)
    except HydraException as error:
        refuse(str(error).splitlines()[0])


def refuse(message: str) -> None:
    """Raise UserError with what a parser of fairseq's found wrong."""
    raise UserError(f"{message} (of the options of fairseq-train)")
