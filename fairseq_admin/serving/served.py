"""The settings of an exported folder: what its CTranslate2 model does not say of itself, and what
the text of its training went through."""

import json
import os
import zlib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Optional, Sequence, Union

from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file
from fairseq_admin.scoring.moses import TextSteps
from fairseq_admin.text import read_json

SERVE = "pip install 'fairseq_admin[serve]'"
SETTINGS = "fairseq_admin.json"
FORMAT = 1
STEPS = ("normalize", "moses", "aggressive", "lowercase")  # arguments of moses.TextSteps
MANIFEST = "manifest.json"  # of scripts/prepare.sh, in the folder above the binarized data


def prepared(data: Union[str, Path]) -> Optional[str]:
    """The STEPS that the text of the binarized *data* went through, separated by spaces, by the
    manifest that scripts/prepare.sh left beside it; None where it left none, UserError for a
    damaged one."""
    path = Path(data).resolve().parent / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path)
    if not isinstance(manifest, dict) or "corpus" not in manifest:
        return None  # of another program
    try:
        said = {step: manifest["corpus"][step] for step in STEPS}
    except (LookupError, TypeError):
        said = {"": None}
    if not all(isinstance(value, bool) for value in said.values()):
        raise UserError(f"{path} is damaged: it does not say what the text went through")
    if manifest["corpus"].get("tokenized"):
        said["normalize"] = False  # tokens stay as they are
    return " ".join(step for step in STEPS if said[step])


def steps_of(data: Union[str, Path], moses: Optional[Sequence[str]] = None) -> Optional[str]:
    """As `prepared`; where there is no manifest, by *moses*: the STEPS beside Moses' tokens, None
    where the text is raw. Raises UserError where *moses* is not what the manifest says."""
    said, given = prepared(data), None
    if moses is not None:
        given = " ".join(step for step in STEPS if step == "moses" or step in moses)
    if said is None or given is None:
        return given if said is None else said
    # those who write --moses need not know of punctuation
    if given not in (said, said.replace("normalize ", "")):
        raise UserError(
            f"{data} was prepared by other steps than --moses says ({said or 'none'}, by its "
            f"{MANIFEST}): leave --moses out"
        )
    return said


def checksum(path: Union[str, Path]) -> int:
    """The CRC-32 of a file."""
    found = 0
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            found = zlib.crc32(block, found)
    return found


@dataclass
class Settings:
    """What `fairseq-admin translate` must know of a folder beside its CTranslate2 model.

    Positions count tokens with the end of the sentence. A side without a SentencePiece model takes
    or gives tokens separated by spaces. Where `text` is set, the source goes through these steps
    before it is cut into pieces; with `moses` among them the translation is detokenized.
    """

    source_lang: str
    target_lang: str
    source_positions: int
    target_positions: int
    source_sentencepiece: Optional[str] = None
    target_sentencepiece: Optional[str] = None
    quantization: Optional[str] = None
    text: Optional[str] = None  # words of STEPS; None: pieces are of text as it is
    format: int = FORMAT
    sums: dict = field(default_factory=dict)  # checksums of the files

    def save(self, folder: Union[str, Path]) -> None:
        """Write the settings into *folder*."""
        with whole_file(os.path.join(folder, SETTINGS)) as f:
            f.write(json.dumps(asdict(self), indent=1) + "\n")

    def steps(self) -> Optional[TextSteps]:
        """What a line goes through; None where it stays as it is."""
        if self.text is None:
            return None
        return TextSteps(self.source_lang, **{step: step in self.text.split() for step in STEPS})

    @classmethod
    def load(cls, folder: Union[str, Path]) -> "Settings":
        """The settings in *folder*; UserError where `fairseq-admin export` did not write it, or a
        file of it is missing or damaged."""
        path = os.path.join(folder, SETTINGS)
        if not os.path.isdir(folder):
            raise UserError(f"no such folder: {folder}")
        if not os.path.isfile(path):
            raise UserError(f"{folder} is no folder of fairseq-admin export: it has no {SETTINGS}")
        record = read_json(path)
        if not isinstance(record, dict) or "format" not in record:
            raise UserError(f"{path} is damaged: it names no format")
        version = record["format"]
        if version != FORMAT:
            raise UserError(
                f"{path} has format {version}, this release reads {FORMAT}: export anew"
            )
        if "moses" in record:  # of an earlier release: the steps beside it, or none at all
            moses = record.pop("moses")
            record["text"] = moses if moses is None else f"moses {moses}".rstrip()
        try:
            settings = cls(**record)
        except TypeError as error:
            raise UserError(f"{path} is damaged: {error}") from None
        for option in fields(cls):
            value = getattr(settings, option.name)
            kind = option.type if option.type in (int, str, dict) else (str, type(None))
            few = option.name.endswith("positions") and isinstance(value, int) and value < 2
            if few or not isinstance(value, kind):
                raise UserError(f"{path} is damaged: {option.name} is {value!r}")
        if not set((settings.text or "").split()) <= set(STEPS):
            raise UserError(f"{path} is damaged: text is {settings.text!r}")
        models = (settings.source_sentencepiece, settings.target_sentencepiece)
        for name in ("model.bin", "config.json", *filter(None, models), *settings.sums):
            if not os.path.isfile(os.path.join(folder, name)):
                raise UserError(f"{folder} is not whole: {name} is missing")
        for name, known in settings.sums.items():
            if checksum(os.path.join(folder, name)) != known:
                raise UserError(f"{folder} is damaged: {name} is not what was exported")
        return settings
