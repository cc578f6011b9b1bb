"""The languages of files, by their names."""

import re
from pathlib import Path
from typing import Sequence, Tuple

from fairseq_admin.errors import UserError
from fairseq_admin.scoring.moses import TWO


def language_of(file: Path) -> str:
    """The language of a file by its name, NAME.LANGUAGE; nothing where that does not end in one."""
    name = re.sub(r"(\.(xml|sgml?|txt))?(\.gz)?$", "", file.name)
    match = re.fullmatch(r".*\.([A-Za-z]{2,3}(?:[-_]\w+)?)", name)
    return match.group(1).replace("-", "_") if match else ""  # fairseq has - between languages


def languages_of(files: Sequence[Path]) -> Tuple[str, str]:
    """The languages of two files, by their names."""
    languages = tuple(map(language_of, files))
    if "" in languages:
        file = files[languages.index("")]
        raise UserError(f"{file}: call it NAME.LANGUAGE, as in train.de or train.de.gz")
    if languages[0] == languages[1]:
        raise UserError(f"two files of the language {languages[0]}: call them NAME.LANGUAGE")
    return languages


def check_sides(split: str, files: Sequence[str], languages: Sequence[str], named: bool) -> None:
    """Raise UserError where a file is by its name of the other side's language; or of a third one,
    where they are *named* by languages. Three letters may be none, as in valid.src."""
    codes = [code_of(side) for side in languages]
    for file, code, side in zip(files, codes, languages):
        name = language_of(Path(file))
        found = code_of(name)
        exchanged = name != side and name in languages
        if exchanged or (found != code and (found in codes or (named and len(found) == 2))):
            raise UserError(
                f"{split}: {file} is {name} by its name, but this side is {side}: give the files "
                "of all splits in the same order, and of the same languages"
            )


def code_of(name: str) -> str:
    """The code of a language without its region or script, of two letters where there is one."""
    code = name.split("_")[0].lower()
    return TWO.get(code, code)
