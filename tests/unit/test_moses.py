"""Moses' text preparation: every expected line is what Moses' own perl scripts write."""

import logging
import pickle

import pytest

from fairseq_admin.errors import UserError
from fairseq_admin.scoring.moses import (
    Detokenizer,
    Tokenizer,
    normalize_punctuation,
    remove_non_printing,
)

TOKENS = {
    "en": [
        # the last word loses its period, the others by abbreviation and by what follows
        ("He moved to the U.S.", "He moved to the U.S ."),
        ("Look at site.com.", "Look at site.com ."),
        ("Mr. Smith, vs. the U.S. in Jan. or not.", "Mr. Smith , vs. the U.S. in Jan. or not ."),
        ("No. 5 is alive. No. It is not at 5 p.m.", "No. 5 is alive . No . It is not at 5 p.m ."),
        ("Wait... what?....", "Wait ... what ? ...."),
        ("It's 1990's music -- isn't it?", "It &apos;s 1990 &apos;s music -- isn &apos;t it ?"),
        ("He said 'no.'", "He said &apos; no . &apos;"),
        ("We want 1,000.5, not 1,000,", "We want 1,000.5 , not 1,000 ,"),
        ('<b>|[a] "&amp;`', "&lt; b &gt; &#124; &#91; a &#93; &quot; &amp; amp ; `"),
        ("state-of-the-art @-@ x", "state-of-the-art @ - @ x"),
        # all of Unicode: scripts, numbers, combining marks, letters beyond the first plane
        ("中文字和한국어，好。", "中文字和한국어 ， 好 。"),
        ("e\u0301 ٣,٤ Ⅷ 👍", "e \u0301 ٣,٤ Ⅷ 👍"),
        ("中's, 中 '文' x.", "中 &apos;s , 中 &apos; 文 &apos; x ."),
        ("中.文. A. usw. ვა", "中.文. A. usw. ვა"),
        ("〇,〇 1,〇 〇,1 x,〇 〇,", "〇,〇 1,〇 〇,1 x , 〇 〇 ,"),
        ("ॐ नमस\u094dते", "ॐ नमस \u094d ते"),
        ("etc. ª and x.𝒂. Ⅷ", "etc. ª and x.𝒂. Ⅷ"),
        # control characters vanish, invisible ones are characters
        ("a\x1cb\x07c\u200bd\xade", "abc \u200b d \xad e"),
        (" \t two  spaces\u3000", "two spaces"),
        ("", ""),
        (" \xa0", ""),
    ],
    "de": [
        ("Am 3. Mai kam Dr. Müller, d.h. er usw.", "Am 3. Mai kam Dr. Müller , d.h. er usw ."),
        ("Die „gute“ Idee: z. B. 3,5 % ‚so‘.", "Die „ gute “ Idee : z. B. 3,5 % ‚ so ‘ ."),
        ("Geht's? Das war's.", "Geht &apos; s ? Das war &apos; s ."),
        ("Nr. 5 bzw. Art. Neun Abs. 3.", "Nr. 5 bzw. Art. Neun Abs . 3 ."),
    ],
    "fr": [
        ("L'homme d'aujourd'hui, c'est", "L&apos; homme d&apos; aujourd&apos; hui , c&apos; est"),
        ("«\u202fl'ami\xa0» av. J.-C.", "« l&apos; ami » av. J.-C ."),
        ("Oui, il l'a. Non !", "Oui , il l&apos; a . Non !"),
        ("l'中", "l&apos; 中"),
    ],
    # the languages for which Moses has rules and sacremoses has not
    "fi": [("EU:ssa, USA: 20:een ja x:Y.", "EU:ssa , USA : 20:een ja x : Y .")],
    "ca": [("Col·legi d'art.", "Col·legi d&apos; art .")],
    "so": [("Lo'da ba' 'x.", "Lo&apos;da ba &apos; &apos; x .")],
    "tdt": [("D'Ita ne'ebé 'x ha'.", "D &apos; Ita ne&apos;ebé &apos; x ha &apos; .")],
}
AGGRESSIVE = {
    "en": [("A 10-year Straße-é re- -x @-@", "A 10 @-@ year Straße @-@ é re- -x @ - @")],
    "de": [("Ost-West-Dialog (Nord-)", "Ost @-@ West @-@ Dialog ( Nord- )")],
    "fr": [("C'est vis-à-vis ?", "C&apos; est vis @-@ à @-@ vis ?")],
    "zh": [("中-字 한-국 'a'", "中 @-@ 字 한 @-@ 국 &apos; a &apos;")],
}
NORMALIZED = {
    "en": [
        ('He said "no", and “yes”.', 'He said "no," and "yes."'),
        ("‘a’ ‚b’ don’t l‘a `x` ''y''", "'a\" 'b\" don't l'a 'x' \" y \" "),
        ("a ( b ) , c ; d : e (f)", "a (b), c; d: e (f) "),
        ("1\xa0000 – 2—3… 5 % 5\xa0%", "1.000 - 2 - 3... 5% 5%"),
        ("x\xa0«\xa0bon\xa0»\xa0y «x»\r", 'x "bon" y "x"'),
        ("٣\xa0٤ ٣ % 20\xa0ºC nº\xa05 5\xa0cm ,\xa0", "٣\xa0٤ ٣ % 20 ºC nº 5 5 cm , "),
        (" x ", " x "),
        ("", ""),
    ],
    "de": [
        ("Er sagt: „Nein.“", 'Er sagt: "Nein".'),
        ('„a,“ „b.“ <x „c.“\xa0"d."', '"a", "b". <x "c".\xa0"d".'),
        ("1\xa0000", "1,000"),
    ],
    "fr": [("«\xa0Oui,\xa0» dit-il\xa0; l’été\xa0!", '"Oui", dit-il; l"été!')],
    "cs": [("„a,“ „b.“ 1\xa0000", '"a," "b." 1,000')],
    "ru": [("«Да,» 1\xa0000 «нет.» x", '"Да", 1.000 "нет". x')],
}
PRINTING = [
    ("a\u200bb\xadc\ufeffd", "a b c d"),
    ("a\tb\x00c\r", "a b c "),
    ("\ue000|\u0378|\x85|", " | | |"),
    ("é 中 😀 \xa0\u2028", "é 中 😀 \xa0\u2028"),  # no more than Moses
]
LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def rows(table):
    return [(lang, line, expected) for lang in table for line, expected in table[lang]]


@pytest.mark.parametrize(("lang", "line", "expected"), rows(TOKENS))
def test_tokens_are_those_of_tokenizer_perl(lang, line, expected):
    assert Tokenizer(lang)(line) == expected


@pytest.mark.parametrize(("lang", "line", "expected"), rows(AGGRESSIVE))
def test_aggressive_tokens_are_those_of_tokenizer_perl(lang, line, expected):
    assert Tokenizer(lang, aggressive=True)(line) == expected


@pytest.mark.parametrize(("lang", "line", "expected"), rows(NORMALIZED))
def test_punctuation_is_that_of_normalize_punctuation_perl(lang, line, expected):
    assert normalize_punctuation(line, lang) == expected


@pytest.mark.parametrize(("line", "expected"), PRINTING)
def test_printing_characters_are_those_of_remove_non_printing_char_perl(line, expected):
    assert remove_non_printing(line) == expected


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("lang", ["en", "fr", "ja"])
def test_no_token_ends_a_line(end, lang):
    tokenize = Tokenizer(lang)
    for line in (end, f"a{end}b.{end}", f"{end} '{end}.' ...{end}"):
        tokens = tokenize(line)
        assert len(tokens.splitlines()) <= 1 and tokens == " ".join(tokens.split())
        assert not set(tokens) & set(LINE_ENDS)


def test_a_language_without_prefixes_takes_those_of_english_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        tokenize = Tokenizer("tr")
    assert "'tr'" in caplog.text and "English" in caplog.text
    assert tokenize("Mr. Can't bzw. Ali.") == "Mr. Can &apos; t bzw . Ali ."


def test_a_known_language_is_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        Tokenizer("de")
    assert not caplog.records


def test_a_region_does_not_matter():
    assert Tokenizer("de_AT")("am 3. Mai") == Tokenizer("de")("am 3. Mai") == "am 3. Mai"


@pytest.mark.parametrize("three", ["eng", "eng_Latn"])
def test_three_letters_are_the_same_language(three):
    tokens = "it &apos;s John &apos;s big dog ."
    assert Detokenizer(three)(tokens) == Detokenizer("en")(tokens) == "it's John's big dog."
    assert Tokenizer(three)("John's") == "John &apos;s"


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("V letech 1990 a 2008 .", "V letech 1990 a 2008."),
        ("asi 3 , 5 a 7 . 5 .", "asi 3,5 a 7.5."),
        ("má - li e - mail zde", "má-li e-mail zde"),
        ("je e &apos; - mail zde", "je e '- mail zde"),
        ("To je konec citátu . “", "To je konec citátu.“"),
        ("Řekl : „ Ano . Pak „ možná “ přijdu .", "Řekl: „Ano. Pak „možná“ přijdu."),
    ],
)
def test_czech_is_joined_as_by_detokenizer_perl(tokens, text):
    assert Detokenizer("cs")(tokens) == text


@pytest.mark.parametrize("lang", ["", "DE", "german", "de_", "d", "de\n", "../en"])
def test_no_language_code_is_one_line_for_the_user(lang):
    for use in (lambda: Tokenizer(lang), lambda: normalize_punctuation("a", lang)):
        with pytest.raises(UserError, match="no language code"):
            use()


def test_other_processes_can_have_the_tokenizer():
    assert pickle.loads(pickle.dumps(Tokenizer("fi", True)))("EU:n x-y.") == "EU:n x @-@ y ."
