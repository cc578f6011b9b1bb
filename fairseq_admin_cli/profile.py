"""fairseq-admin profile: branch variances, and the omegas that a training would start with."""

import argparse

from fairseq_admin_cli.checks import check_installed, check_output, refuse

HELP = """\
Profile a model as `fairseq-train` would before it trains, and write the result; nothing is trained.
Give the arguments of `fairseq-train`: the data folder, --arch and whatever sizes the model. Those
that only training needs may stay or be left out; --task and --user-dir are filled in."""


def build_profile(arguments: list[str]):
    """The `omega_file.Profile` that `fairseq-train` with *arguments* would set; UserError where
    they are of no training of `transformer_admin`."""
    import numpy as np
    from fairseq import tasks, utils

    from fairseq_admin.arguments import training_config
    from fairseq_admin.errors import UserError
    from fairseq_admin.omega_file import Profile
    from fairseq_admin.profiling import named_junctions

    cfg = training_config(arguments)
    np.random.seed(cfg.common.seed)  # as fairseq_cli/train.py, so that the weights are the same
    utils.set_torch_seed(cfg.common.seed)
    task = tasks.setup_task(cfg.task)
    # as one that is loaded, which is not looked for in --save-dir
    model = task.build_model(cfg.model, from_checkpoint=True)
    if not any(named_junctions(model).values()):
        raise UserError(
            f"--arch {cfg.model._name} has no residual methods: give one of transformer_admin's"
        )
    task.initialize_omegas(model, cfg.model)
    return Profile.from_dict(task.state.state_dict["profile"])


def run(options: argparse.Namespace, rest: list[str]) -> None:
    """Profile, print the table, write the files."""
    check_output(options.output)
    if options.plot:
        check_output(options.plot)
        check_installed("plot", "matplotlib")
    profile = build_profile(["--arch", options.arch, *rest])
    if options.plot and not profile.omegas:
        refuse("--plot draws omegas, and this residual method has none: leave it out")
    print(profile.table())
    profile.save(options.output)
    print(f"wrote {options.output}")
    if options.plot:
        from fairseq_admin.analysis.plotting import plot_omegas
        from fairseq_admin.files import whole_file

        with whole_file(options.plot, "wb") as picture:
            plot_omegas(profile, picture)
        print(f"wrote {options.plot}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.usage = (
        "fairseq-admin profile [-h] [--output FILE] [--plot PNG] DATA --arch ARCH "
        "[arguments of fairseq-train ...]"
    )
    parser.add_argument(
        "-a", "--arch", required=True, metavar="ARCH", help="architecture of the model"
    )
    told = "JSON file to write, as --omega-file takes it (default: %(default)s)"
    parser.add_argument("--output", metavar="FILE", default="profile.json", help=told)
    parser.add_argument("--plot", metavar="PNG", help="also plot omega over depth")
