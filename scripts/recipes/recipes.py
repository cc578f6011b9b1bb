"""The recipes, recipes.yaml beside configs/; the options of running one."""

import argparse
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

from omegaconf import OmegaConf

from corpora.corpus import load_corpus
from fairseq_admin.errors import UserError
from recipes.code import ROOT
from recipes.configs import load_config
from recipes.training import Training

HERE = Path(__file__).parent
COSTS = ROOT / "results" / "costs.json"
SMOKE = OmegaConf.to_container(OmegaConf.load(HERE / "smoke.yaml"))
SMOKE_DEPTH = 6  # layers of a recipe to one of its smoke test


def load_recipes() -> Dict[str, Dict[str, Any]]:
    """Facts of each recipe by name, those of its group among them."""
    groups = OmegaConf.to_container(OmegaConf.load(HERE / "recipes.yaml"))
    recipes = {}
    for group, facts in groups.items():
        for name, published in facts.pop("recipes").items():
            recipes[name] = {**facts, "group": group, "published": published}
    return recipes


def smoke_overrides(name: str) -> List[str]:
    """The recipe *name* in a minute, at a sixth of its depth."""
    sizes = load_config(name).model
    layers = {stack: sizes[stack] // SMOKE_DEPTH for stack in ("decoder_layers", "encoder_layers")}
    return [*SMOKE, *(f"model.{stack}={max(2, count)}" for stack, count in layers.items())]


def averaged(config: Any) -> List[str]:
    """Options of evaluate.sh: the mean of the checkpoints that the *config* makes and keeps.
    UserError where it keeps no number of them."""
    saved, most = config.checkpoint, config.optimization
    epochs, updates = saved.get("keep_last_epochs", -1), saved.get("keep_interval_updates", -1)
    if most.get("max_epoch"):
        epochs = min(epochs, most.max_epoch // saved.get("save_interval", 1))
    if most.get("max_update") and saved.get("save_interval_updates"):
        updates = min(updates, most.max_update // saved.save_interval_updates)
    if epochs > 0 and not saved.get("no_epoch_checkpoints"):
        return ["--num-epoch-checkpoints", str(epochs)]
    if updates > 0 and saved.get("save_interval_updates"):
        return ["--num-update-checkpoints", str(updates)]
    raise UserError(
        "of how many checkpoints is the mean? give checkpoint.keep_last_epochs, of epochs that "
        "are saved"
    )


def load_costs() -> Dict[str, Dict[str, Any]]:
    """The rows of results/costs.json by recipe; none where scripts/costs.py has not written it."""
    rows = json.loads(COSTS.read_text(encoding="utf-8"))["rows"] if COSTS.exists() else []
    return {row["recipe"]: row for row in rows}


def listing(recipes: Dict[str, Dict[str, Any]]) -> str:
    """One line a recipe: pairs, layers, GPUs, hours on these and disk (docs/costs.md), published
    BLEU."""
    heads = ("pairs", "layers", "GPUs x tokens x update-freq", "A100 hours", "GB of disk")
    rows = [("recipe", *heads, "published BLEU")]
    costs = load_costs()
    for name, facts in recipes.items():
        config = Training(name, ROOT, ROOT).config
        pairs = load_corpus(facts["corpus"]).lines.get("train")
        layers = f"{config.model.encoder_layers}-{config.model.decoder_layers}"
        batch = f"{config.distributed_training.distributed_world_size} x "
        batch += f"{config.dataset.max_tokens} x {config.optimization.update_freq[0]}"
        cost, hours, disk = costs.get(name), "", ""
        if cost:
            hours = f"{cost['hours']['A100']:.0f}"
            disk = f"{cost['corpus_gb'] + cost['checkpoints_gb']:.0f}"
        published = facts["published"]
        rows.append((name, f"{pairs:,}" if pairs else "", layers, batch, hours, disk, published))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows)


def parsed(
    arguments: Sequence[str], description: str, steps: Sequence[str], recipes: Dict[str, Any]
) -> argparse.Namespace:
    """Options of scripts/run.sh; what follows `--` as their `overrides`."""
    parser = argparse.ArgumentParser(
        prog="run.sh",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="a recipe of the list below, or a group of them")
    parser.add_argument("--from", dest="first", choices=steps, default=steps[0])
    parser.add_argument("--to", dest="last", choices=steps, default=steps[-1])
    parser.add_argument("--dry-run", action="store_true", help="print it all, do nothing")
    parser.add_argument("--smoke", action="store_true", help="all steps in minutes on two cores")
    parser.add_argument("--seed", type=int, help="default: each seed of the recipe, in turn")
    parser.add_argument("--gpus", type=int, help="a machine (default: the recipe's)")
    parser.add_argument("--nodes", type=int, default=1, help="machines; start this on each")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="where several machines meet")
    parser.add_argument("--max-tokens", type=int, help="a GPU, where memory is short")
    parser.add_argument("--cpu", action="store_true", help="processors; --gpus processes with gloo")
    parser.add_argument(
        "--slurm", nargs="*", metavar="KEY=VALUE", help="by SLURM: timeout_min=... partition=..."
    )
    parser.add_argument("--data", type=Path, help="folder of prepare.sh, instead of the corpus")
    parser.add_argument("--subset", default="test", help="split to score on")
    parser.add_argument("--mirror", help="of the downloads, see prepare.sh")
    parser.add_argument("--output", type=Path, help="folder of the runs (default: runs)")
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    if {"-h", "--help"}.intersection(arguments[:cut]):
        parser.epilog = listing(recipes)  # takes a second
    options = parser.parse_args(arguments[:cut])
    options.overrides = list(arguments[cut + 1 :])
    return options
