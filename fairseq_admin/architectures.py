"""The named sizes of transformer_admin, and a name for each method; importing registers them."""

from dataclasses import field, make_dataclass
from typing import Dict, Union

from fairseq.models import register_model

from fairseq_admin.methods import METHODS, architecture
from fairseq_admin.model import TransformerAdminConfig, TransformerAdminModel

# fairseq's architectures as far as they differ from the base sizes (6-6, 512, 2048, 8 heads).
# An architecture is a config with other defaults, so that `--arch` and hydra's `_name` agree.
ARCHITECTURES: Dict[str, Dict[str, Union[int, str]]] = {
    **{architecture(name): {"residual": name} for name in METHODS},
    "transformer_admin_iwslt_de_en": {
        "encoder_ffn_embed_dim": 1024,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    },
    "transformer_admin_wmt_en_de": {},
    "transformer_admin_wmt_en_de_12l": {"encoder_layers": 12, "decoder_layers": 12},
    "transformer_admin_wmt_en_de_18l": {"encoder_layers": 18, "decoder_layers": 18},
    "transformer_admin_wmt_en_fr": {},
    "transformer_admin_wmt_en_fr_60l_12l": {"encoder_layers": 60, "decoder_layers": 12},
    "transformer_admin_36l_12l_768": {
        "encoder_layers": 36,
        "decoder_layers": 12,
        "encoder_embed_dim": 768,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
        "decoder_attention_heads": 12,
    },
}


def register_architecture(name: str, defaults: Dict[str, Union[int, str]]) -> None:
    """Register model *name*: `transformer_admin` whose config has these *defaults*."""
    config = make_dataclass(
        f"{name}_config",
        [(key, type(value), field(default=value)) for key, value in defaults.items()],
        bases=(TransformerAdminConfig,),
    )
    register_model(name, dataclass=config)(type(name, (TransformerAdminModel,), {}))


for _name, _defaults in ARCHITECTURES.items():
    register_architecture(_name, _defaults)
