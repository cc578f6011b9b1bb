"""The recipes: scripts/recipes.yaml beside configs/."""

from typing import Any, Dict

from omegaconf import OmegaConf
from training import ROOT, Training


def load_recipes() -> Dict[str, Dict[str, Any]]:
    """Facts of each recipe by name, those of its group among them."""
    groups = OmegaConf.to_container(OmegaConf.load(ROOT / "scripts" / "recipes.yaml"))
    recipes = {}
    for group, facts in groups.items():
        for name, published in facts.pop("recipes").items():
            recipes[name] = {**facts, "group": group, "published": published}
    return recipes


def listing(recipes: Dict[str, Dict[str, Any]]) -> str:
    """One line a recipe: layers, batch, published BLEU."""
    rows = [("recipe", "pairs", "layers", "GPUs x tokens x update-freq", "published BLEU")]
    for name, facts in recipes.items():
        config = Training(name, ROOT, ROOT).config
        lines = OmegaConf.load(ROOT / "data" / facts["corpus"] / "corpus.yaml").lines
        published = facts["published"]
        rows.append(
            (
                name,
                f"{lines.train:,}",
                f"{config.model.encoder_layers}-{config.model.decoder_layers}",
                f"{config.distributed_training.distributed_world_size} x "
                f"{config.dataset.max_tokens} x {config.optimization.update_freq[0]}",
                "diverged" if published is None else str(published),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows)
