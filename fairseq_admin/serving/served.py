"""The settings of an exported folder: what its CTranslate2 model does not say of itself."""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Optional, Union

from fairseq_admin.errors import UserError

SERVE = "pip install 'fairseq_admin[serve]'"
SETTINGS = "fairseq_admin.json"
FORMAT = 1
MOSES = ("aggressive", "lowercase")  # how the source was tokenized, beside Moses' defaults


@dataclass
class Settings:
    """What `fairseq-admin translate` must know of a folder beside its CTranslate2 model.

    Positions count tokens with the end of the sentence. A side without a SentencePiece model takes
    or gives tokens separated by spaces. Where `moses` is set, the source is tokenized as Moses does
    before it is cut into pieces, and the translation is detokenized.
    """

    source_lang: str
    target_lang: str
    source_positions: int
    target_positions: int
    source_sentencepiece: Optional[str] = None
    target_sentencepiece: Optional[str] = None
    quantization: Optional[str] = None
    moses: Optional[str] = None  # words of MOSES; None: pieces are of raw text
    format: int = FORMAT

    def save(self, folder: Union[str, Path]) -> None:
        """Write the settings into *folder*."""
        with open(os.path.join(folder, SETTINGS), "w", encoding="utf-8") as f:
            f.write(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Union[str, Path]) -> "Settings":
        """The settings in *folder*.

        Raises:
            UserError: for a folder that `fairseq-admin export` did not write, or that lacks a file.
        """
        path = os.path.join(folder, SETTINGS)
        if not os.path.isdir(folder):
            raise UserError(f"no such folder: {folder}")
        if not os.path.isfile(path):
            raise UserError(f"{folder} is no folder of fairseq-admin export: it has no {SETTINGS}")
        try:
            with open(path, encoding="utf-8") as f:
                record = json.load(f)
            version = record["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: {error!r}") from None
        if version != FORMAT:
            raise UserError(
                f"{path} has format {version}, this release reads {FORMAT}: export anew"
            )
        try:
            settings = cls(**record)
        except TypeError as error:
            raise UserError(f"{path} is damaged: {error}") from None
        for field in fields(cls):
            value = getattr(settings, field.name)
            kind = field.type if field.type in (int, str) else (str, type(None))
            if not isinstance(value, kind):
                raise UserError(f"{path} is damaged: {field.name} is {value!r}")
        if settings.moses and not set(settings.moses.split()) <= set(MOSES):
            raise UserError(f"{path} is damaged: moses is {settings.moses!r}")
        models = (settings.source_sentencepiece, settings.target_sentencepiece)
        for name in ("model.bin", "config.json", *filter(None, models)):
            if not os.path.isfile(os.path.join(folder, name)):
                raise UserError(f"{folder} is not whole: {name} is missing")
        return settings
