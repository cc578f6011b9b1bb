"""Moses' text preparation by sacremoses, corrected where Moses' own scripts give another line.

``Tokenizer`` is tokenizer.perl, ``normalize_punctuation`` normalize-punctuation.perl and
``remove_non_printing`` remove-non-printing-char.perl, each for one line without its newline.
``TextSteps`` is all of them in a row. Only ``Tokenizer`` and that guarantee a result without
anything that could end a line. The other two, as Moses' scripts, do not: punctuation removes of
line ends only ``\\r``, printing leaves U+2028/2029.
"""

import logging
import re
from functools import lru_cache, partial
from typing import Callable, List, Tuple

import regex
from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer
from sacremoses.corpus import NonbreakingPrefixes

from fairseq_admin.errors import UserError

logger = logging.getLogger(__name__)

LANGUAGE = re.compile(r"([a-z]{2,3})([-_][A-Za-z0-9]+)*")  # ISO 639
CODES = """
asm:as ben:bn cat:ca ces:cs cze:cs dan:da deu:de ger:de ell:el gre:el eng:en spa:es est:et
fin:fi fra:fr fre:fr gle:ga guj:gu hin:hi hun:hu isl:is ice:is ita:it kan:kn lit:lt lav:lv
lvs:lv mal:ml mar:mr nld:nl dut:nl ori:or ory:or pan:pa pol:pl por:pt ron:ro rum:ro rus:ru
slk:sk slo:sk slv:sl som:so swe:sv tam:ta tel:te
"""  # of three letters, and the two by which Moses names its files
TWO = dict(code.split(":") for code in CODES.split())
# What detokenizer.perl joins in Czech: 3,5 and je-li; sacremoses looks at the end of the line
CZECH = (
    re.compile(r"(?<!\S)([0-9]+) ([.,]) (?=[0-9]+(?!\S))"),
    re.compile(r"([^\W\d_]) ([-–]) (?=li(?!\S)|mail)", re.IGNORECASE),
)
END = "\ue000"  # a last token that switches off sacremoses' rule for 3,5
ALPHA = regex.compile(r"\p{Alpha}")
NON_PRINTING = regex.compile(r"\p{C}")
LINE_ENDS = re.compile("[\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")  # to Python or to fairseq

# Moses: all of Unicode, as perl knows it. sacremoses: lists of characters of an older Unicode
# without Chinese or Korean, but with the viramas and nuktas of Indic scripts. regex, as perl, has
# the properties themselves, each of its own Unicode version (and regex is three times as fast).
PROPERTIES = [
    (MosesTokenizer.IsAlnum, r"\p{Alnum}"),
    (MosesTokenizer.IsAlpha, r"\p{Alpha}"),
    (MosesTokenizer.IsN, r"\p{N}"),
]

# What tokenizer.perl does for single languages and sacremoses for none, or for French alone:
WITHIN_WORDS = {"fi": ":", "sv": ":", "ca": "·"}  # no reason to split, EU:ssa and col·legi
SPLIT_BEFORE_NO_LOWER = {"fi": ":", "sv": ":", "tdt": "'"}  # but split where a word cannot go on
APOSTROPHES_AS_FRENCH = ("ca", "ga", "so", "tdt")
GLOTTALS = ("so", "tdt")  # of French's rules not the last: an apostrophe within a word stays


def language(lang: str) -> str:
    """The language of a code such as pt, por or pt_BR, by two letters where Moses has such rules.
    Raises `UserError` where *lang* is none."""
    match = LANGUAGE.fullmatch(lang)
    if not match:
        raise UserError(f"{lang!r} is no language code: two or three lower-case letters, as de")
    return TWO.get(match[1], match[1])


def _by_property(rule: Tuple[re.Pattern, str], within_words: str = "") -> Tuple:
    """A *rule* of sacremoses with Unicode properties; *within_words* joins its first class."""
    pattern, replacement = rule
    source = pattern.pattern
    for characters, unicode_property in PROPERTIES:
        source = source.replace(characters, unicode_property)
    return regex.compile(source.replace("[^", f"[^{within_words}", 1)), replacement


class _PerlTokenizer(MosesTokenizer):
    """sacremoses' tokenizer with Moses' own behaviour at each seam where they differ."""

    # Moses deletes the control characters U+001C to U+001F; Python takes them for spaces.
    DEDUPLICATE_SPACE = re.compile(r"[^\S\x1c-\x1f]+"), " "
    AGGRESSIVE_HYPHEN_SPLIT = _by_property(MosesTokenizer.AGGRESSIVE_HYPHEN_SPLIT)
    COMMA_SEPARATE_1 = _by_property(MosesTokenizer.COMMA_SEPARATE_1)
    COMMA_SEPARATE_2 = _by_property(MosesTokenizer.COMMA_SEPARATE_2)
    COMMA_SEPARATE_3 = _by_property(MosesTokenizer.COMMA_SEPARATE_3)
    ENGLISH_SPECIFIC_APOSTROPHE = [*map(_by_property, MosesTokenizer.ENGLISH_SPECIFIC_APOSTROPHE)]
    FR_IT_SPECIFIC_APOSTROPHE = [*map(_by_property, MosesTokenizer.FR_IT_SPECIFIC_APOSTROPHE)]

    def __init__(self, lang: str) -> None:
        super().__init__(lang)
        # also undoes sacremoses' own classes for Chinese, Japanese and Korean, which Moses lacks
        self.AGGRESSIVE_HYPHEN_SPLIT = type(self).AGGRESSIVE_HYPHEN_SPLIT
        self.PAD_NOT_ISALNUM = _by_property(
            MosesTokenizer.PAD_NOT_ISALNUM, WITHIN_WORDS.get(lang, "")
        )
        self.split_before_no_lower = None
        if lang in SPLIT_BEFORE_NO_LOWER:
            character = SPLIT_BEFORE_NO_LOWER[lang]
            self.split_before_no_lower = regex.compile(rf"{character}(?=$|\P{{Ll}})")
            self.split_replacement = f" {character} "
        if lang in APOSTROPHES_AS_FRENCH:
            self.lang = "fr"  # only selects the rules for apostrophes, once prefixes are loaded
        if lang in GLOTTALS:
            self.FR_IT_SPECIFIC_APOSTROPHE = self.FR_IT_SPECIFIC_APOSTROPHE[:-1]

    def replace_multidots(self, text: str) -> str:
        if self.split_before_no_lower:  # the step before this one in tokenizer.perl
            text = self.split_before_no_lower.sub(self.split_replacement, text)
        return super().replace_multidots(text)

    def islower(self, text: str) -> bool:
        return text.islower()  # of one character: the property that perl asks, see PROPERTIES

    def isanyalpha(self, text: str) -> bool:
        return bool(ALPHA.search(text))

    def handles_nonbreaking_prefixes(self, text: str) -> str:
        # Moses splits the last word from its period whatever the word ("the U.S."); sacremoses
        # does not where the word is an abbreviation.
        text = text.rstrip(" ")
        if text.endswith(".") and not text.endswith(" ."):
            text = f"{text[:-1]} ."
        if ". " not in text:
            return text  # no other word has a period: saves a search in each
        return super().handles_nonbreaking_prefixes(text)


class Tokenizer:
    """Moses' ``tokenizer.perl -l LANG [-a]``: a line to its tokens, special characters escaped.

    A language without non-breaking prefixes takes English's, with a warning, as in Moses. Raises
    `UserError` where *lang* is no language code.
    """

    def __init__(self, lang: str, aggressive: bool = False) -> None:
        lang = language(lang)
        if lang not in NonbreakingPrefixes().available_langs:
            logger.warning("Moses knows no abbreviations of %r: English's are used", lang)
        self.aggressive = aggressive
        self._moses = _PerlTokenizer(lang)

    def __call__(self, line: str) -> str:
        """Tokens of *line* between single spaces, no other whitespace, nothing to end a line.

        tokenizer.perl leaves a blank line as it is and may write two spaces, or one at the end.
        """
        # str.split() takes every line end that Python knows
        return " ".join(self._moses.tokenize(line, self.aggressive))


class Detokenizer:
    """Moses' ``detokenizer.perl -l LANG``, by sacremoses but for Czech: tokens, which may be
    escaped, to a line."""

    def __init__(self, lang: str) -> None:
        self._moses = MosesDetokenizer(language(lang))
        self.joined = CZECH if language(lang) == "cs" else ()
        if self.joined:  # neither sacremoses' rule for je-li
            self._moses.IS_FRENCH_CONRTACTION = re.compile("(?!)")

    def __call__(self, line: str) -> str:
        """The text of the tokens in *line*, which are separated by whitespace."""
        line = " ".join(line.split())
        for pattern in self.joined:
            line = pattern.sub(r"\1\2", line)
        return self._moses.detokenize([*line.split(), END]).removesuffix(END).rstrip()

    def unescape(self, line: str) -> str:
        """The tokens in *line* as they are without Moses' escapes such as `&apos;`."""
        return self._moses.unescape_xml(line)


@lru_cache(maxsize=None)
def _punctuation_rules(lang: str) -> List[Tuple[re.Pattern, str]]:
    lang = language(lang)
    rules = MosesPunctNormalizer(lang, perl_parity=True).substitutions
    # Moses moves commas and periods out of quotes in every language but English, which has a rule
    # of its own, and Czech; sacremoses in three. The rule for numbers stays the last.
    if lang not in ("en", "cs", "cz", "de", "es", "fr"):
        rules[-1:-1] = MosesPunctNormalizer.DE_ES_FR_QUOTATION_FOLLOWED_BY_COMMA
    # Moses reads bytes, of which only ASCII's are digits and spaces; sacremoses all of Unicode's.
    return [(re.compile(pattern, re.ASCII), replacement) for pattern, replacement in rules]


def normalize_punctuation(line: str, lang: str) -> str:
    """*line* as Moses' ``normalize-punctuation.perl -l LANG`` writes it, spaces at its ends kept.

    Removes ``\\r``, but no other line end: `Tokenizer` does. Raises `UserError` where *lang* is no
    language code.
    """
    # Moses' rules see the newline (a period before the last quote moves too) and leave spaces at
    # the ends; sacremoses has no newline and strips.
    line += "\n"
    for pattern, replacement in _punctuation_rules(lang):
        line = pattern.sub(replacement, line)
    return line[:-1]


def remove_non_printing(line: str) -> str:
    """*line* as Moses' ``remove-non-printing-char.perl`` writes it.

    A space replaces each character of category C: control, format (zero-width space, soft hyphen,
    BOM), private and unassigned characters; not U+2028 and U+2029, those end with `Tokenizer`.
    """
    return NON_PRINTING.sub(" ", line)


class TextSteps:
    """Raw text to tokens, a line at a time: what training text goes through before it is cut into
    subwords, and so what any text must that the model is to translate.

    Args:
        lang: the line's language; `UserError` is raised where the steps need it and it is none.
        normalize: Moses' punctuation, and no characters that do not print.
        moses: Moses' tokens, *aggressive* with hyphens between letters as tokens; else only spaces
            become single ones.
        lowercase: at the end.
    """

    def __init__(
        self,
        lang: str,
        normalize: bool = False,
        moses: bool = True,
        aggressive: bool = False,
        lowercase: bool = False,
    ) -> None:
        self.steps: List[Callable[[str], str]] = []
        if normalize:
            punctuation = partial(normalize_punctuation, lang=language(lang))
            self.steps += [punctuation, remove_non_printing]
        self.steps.append(Tokenizer(lang, aggressive) if moses else single_spaced)
        if lowercase:
            self.steps.append(str.lower)

    def __call__(self, line: str) -> str:
        """The tokens of *line*, nothing in it to end a line."""
        line = LINE_ENDS.sub(" ", line)
        for step in self.steps:
            line = step(line)
        return line


def single_spaced(line: str) -> str:
    """*line* with one space where there is any whitespace, none at its ends."""
    return " ".join(line.split())
