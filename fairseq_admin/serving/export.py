"""Export: a plain `transformer` checkpoint as one folder that a server needs and nothing else.

The folder is a CTranslate2 model with the SentencePiece models and dictionaries beside it, and
``fairseq_admin.json``, which says what is what.
"""

import logging
import os
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from fairseq.data.data_utils import infer_language_pair

from fairseq_admin.checkpoints.checkpoint import (
    model_options,
    read_checkpoint,
    residual_of,
    task_options,
    write_checkpoint,
)
from fairseq_admin.checkpoints.equivalence import Difference
from fairseq_admin.checkpoints.fold import check_weights, fold
from fairseq_admin.data_files import check_dictionaries, described, read_dictionary
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.files import whole_folder, writing
from fairseq_admin.fit import scaled
from fairseq_admin.methods import STACKS
from fairseq_admin.scoring.moses import language
from fairseq_admin.scoring.outputs import FEW
from fairseq_admin.serving.pieces import check_sentencepiece
from fairseq_admin.serving.served import SERVE, SETTINGS, Settings, checksum, prepared, steps_of

logger = logging.getLogger(__name__)

JOINT, SIDES = "spm.model", ("source.spm.model", "target.spm.model")


def export_model(
    checkpoint: str,
    data: str,
    output: str,
    sentencepiece: Sequence[str] = (),
    quantization: Optional[str] = None,
    moses: Optional[Sequence[str]] = None,
    source_lang: Optional[str] = None,
    target_lang: Optional[str] = None,
    force: bool = False,
) -> Optional[Difference]:
    """Make the folder *output* of a *checkpoint*: of `transformer_admin`, which is folded, or of
    a plain `transformer`, a folded one for example.

    *data* is the folder with the dictionaries that fairseq-preprocess wrote. *sentencepiece* names
    no model, one for both languages, or those of source and target. *quantization* is CTranslate2's
    name of a weight type, None for float32. *moses* is as `served.steps_of` takes it; without a
    SentencePiece model no manifest is asked, since words are then given as the dictionary has them.
    *source_lang* and *target_lang* are languages of data whose sides are called otherwise. With
    *force* a folder that an earlier export wrote is replaced.

    Returns:
        how far the folded model is from what it was; None where nothing was folded.

    Raises:
        UserError: for files that are missing or do not belong together, for a model that
            CTranslate2 cannot run, and for an *output* that exists; nothing is written then.
    """
    check_output(output, force)
    state = read_checkpoint(checkpoint)
    if task_options(state).get("lang_pairs"):
        raise UserError(
            f"{checkpoint} is of a multilingual task, whose tags of languages no server knows: "
            "decode it with fairseq-generate"
        )
    if residual_of(state) is None and scaled(model_options(state), state["model"]):
        raise UserError(
            f"{checkpoint} is of a fork of fairseq that scales shortcuts or branches, which no "
            "server knows: decode it with that fork"
        )
    source, target = sides = languages(state, data)
    if len(sentencepiece) > 2:
        raise UserError("give one SentencePiece model for both languages, or two")
    models = (list(sentencepiece) * 2)[:2]
    stored = (None, None)
    if models:
        stored = SIDES if models[0] != models[1] else (JOINT, JOINT)
    dictionaries = [read_dictionary(data, lang) for lang in sides]
    for stack, lang, dictionary, model in zip(STACKS, sides, dictionaries, models or (None, None)):
        rows = len(state["model"].get(f"{stack}.embed_tokens.weight", ()))
        if len(dictionary) != rows:
            raise UserError(
                f"the {stack} has {rows} embeddings, but {data}/dict.{lang}.txt makes "
                f"{len(dictionary)}: it is not the data of this model"
            )
        if model:
            check_sentencepiece(model, dictionary, lang, data, sides)
        pieces = sum(symbol.endswith("@@") for symbol in dictionary.symbols)
        if moses is not None and FEW * pieces > len(dictionary):
            raise UserError(
                f"{data}/dict.{lang}.txt holds subword-nmt's pieces, into which nothing here cuts "
                "text: leave --moses out; translate then takes and gives pieces"
            )
        escapes = {symbol.lstrip("▁") for symbol in dictionary.symbols} & {"&apos;", "&quot;"}
        if model and moses is None and escapes and prepared(data) is None:
            logger.warning(
                f"{data}/dict.{lang}.txt holds {min(escapes)}: where the text was Moses-tokenized, "
                "give --moses"
            )
    found = described(sides, dictionaries)["dictionaries"]
    check_dictionaries(state, found, "another checkpoint", checkpoint)
    options = model_options(state)
    for name in ("max_source_positions", "max_target_positions"):
        if not isinstance(options.get(name), int):
            raise UserError(f"{checkpoint} says nothing of its positions ({name})")
    text = steps_of(data, moses) if models or moses is not None else None
    if text:
        language_of(source, source_lang, "--source-lang")
        language_of(target, target_lang, "--target-lang")
    settings = Settings(
        source_lang=source_lang or source,
        target_lang=target_lang or target,
        source_positions=options["max_source_positions"],
        target_positions=options["max_target_positions"],
        source_sentencepiece=stored[0],
        target_sentencepiece=stored[1],
        quantization=quantization,
        text=text,
    )
    check_weights(state["model"])
    state, difference = fold(state) if residual_of(state) else (state, None)
    folder = Path(os.path.abspath(output))
    with whole_folder(folder) as partial, writing(output):
        convert(state, data, sides, partial, quantization)
        for model, name in zip(models, stored):
            shutil.copyfile(model, partial / name)
        for name in {f"dict.{side}.txt" for side in sides}:
            shutil.copyfile(os.path.join(data, name), partial / name)
        settings.sums = {path.name: checksum(path) for path in partial.iterdir()}
        settings.save(partial)
    return difference


def language_of(side: str, given: Optional[str], option: str) -> str:
    """The language of a *side* of the data: that *given* by *option*, else as the side is called.
    UserError where it is no code."""
    try:
        language(given or side)
    except UserError as error:
        raise UserError(f"{error.message}: give {option}") from None
    return given or side


def check_output(output: str, force: bool) -> None:
    """Raise UserError unless the folder *output* may be made, or with *force* replaced."""
    if not os.path.isdir(os.path.dirname(os.path.abspath(output))):
        raise UserError(f"no such folder: {os.path.dirname(os.path.abspath(output))}")
    if not os.path.lexists(output):
        return
    if not force:
        raise UserError(f"{output} exists: give another --output, or --force to replace it")
    if os.path.islink(output) or not os.path.isfile(os.path.join(output, SETTINGS)):
        raise UserError(f"{output} is no folder of fairseq-admin export: it is not replaced")


def languages(state: Dict[str, Any], data: str) -> Sequence[str]:
    """Source and target language: what the training said, else what *data* is named after."""
    if not os.path.isdir(data):
        raise UserError(f"no such folder: {data}")
    task = task_options(state)
    said = [task.get(side) for side in ("source_lang", "target_lang")]
    if not all(said):
        said = infer_language_pair(data) or (None, None)
    if not all(said):
        raise UserError(
            f"neither the checkpoint nor {data} says which languages they are of: give the folder "
            "that fairseq-preprocess wrote"
        )
    return said


def convert(
    state: Dict[str, Any], data: str, pair: Sequence[str], folder: Path, quantization: Optional[str]
) -> None:
    """CTranslate2's own conversion of the checkpoint *state* into the existing *folder*."""
    try:
        from ctranslate2.converters import FairseqConverter
    except ImportError:
        raise UserError(f"CTranslate2 is not installed: {SERVE}") from None
    options = model_options(state)
    left_out = {
        "--cross-self-attention": options.get("cross_self_attention"),
        "--quant-noise-pq": any(key.endswith(".quant_noise.weight") for key in state["model"]),
    }
    for option in filter(left_out.get, left_out):
        raise UserError(f"CTranslate2 leaves out what {option} adds: decode with fairseq-generate")
    # as the converter wants them: attributes, whether fairseq-train or hydra wrote the checkpoint
    args = Namespace(**{"arch": options["_name"], **options})
    args.task, args.source_lang, args.target_lang = "translation", *pair
    path = folder / "checkpoint.pt"
    write_checkpoint({"args": args, "model": state["model"]}, str(path))
    try:
        converter = FairseqConverter(str(path), data, *pair)
        converter.convert(str(folder), quantization=quantization, force=True)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, KeyError) as error:
        raise UserError(f"CTranslate2 cannot run this model: {one_line(error)}") from error
    path.unlink(missing_ok=True)  # force empties the folder
