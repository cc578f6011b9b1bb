"""Hidden-state norm per layer, against the bounds of Xiong et al. 2020, lemma 2: E|x|^2 is 3d/2
before the FFN's norm of Post-LN, between (1 + l/2) d and (1 + 3l/2) d after layer l
of a Pre-LN encoder.
"""

from functools import partial
from typing import Any, Dict, List

import torch
from torch import Tensor, nn

from fairseq_admin.analysis.subjects import Batch, measure_models
from fairseq_admin.analysis.sublayers import Passage, at_rest, attached


@torch.no_grad()
def hidden_norms(model: nn.Module, batch: Batch, pad: int) -> Dict[str, List[Dict[str, Any]]]:
    """E|x|^2 / embed_dim of the sum at each sublayer, over non-padding tokens, by stack: what a
    Post-LN norm reads, what a Pre-LN stream carries. The first entry is the stack's input."""
    stacks: Dict[str, List[Dict[str, Any]]] = {"encoder": [], "decoder": []}

    def observe(stack: str, passage: Passage) -> None:
        def add(name: str, kind: str, x: Tensor) -> None:
            norm2 = x[passage.valid].float().square().mean().item()
            stacks[stack].append({"name": name, "kind": kind, "norm2": norm2})

        if not stacks[stack]:
            add(f"{stack} input", "input", passage.shortcut)
        add(passage.sublayer.name, passage.sublayer.kind, passage.total)

    with at_rest(model), attached(model, batch["net_input"], pad, observe):
        model(**batch["net_input"])
    return stacks


measure = partial(measure_models, "norms", hidden_norms)
