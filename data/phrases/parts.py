"""The parts that several frames share: noun phrases, persons, verb forms."""

from __future__ import annotations

import random

import lexicon as lex
from lexicon import Noun, Pair, Verb


def sentence(de: str, en: str) -> Pair:
    """A pair with its first letters in upper case."""
    return Pair(de[0].upper() + de[1:], en[0].upper() + en[1:])


def phrase(noun: Noun, adjective: Pair, accusative: bool = False) -> Pair:
    """Definite article, adjective and noun, with the German endings of the case."""
    masculine_object = accusative and noun.article == "der"
    article = "den" if masculine_object else noun.article
    ending = "en" if masculine_object else "e"
    de = f"{article} {adjective.de}{ending} {noun.de}"
    return Pair(de, f"the {adjective.en} {noun.en}")


def document(rng: random.Random, accusative: bool = False) -> Pair:
    """A compound with an adjective: ("den neuen Wetterbericht", "the new weather report")."""
    modifier, head = rng.choice(lex.MODIFIERS), rng.choice(lex.HEADS)
    noun = Noun(head.article, modifier.de + head.de, f"{modifier.en} {head.en}")
    return phrase(noun, rng.choice(lex.ADJECTIVES), accusative)


def role(rng: random.Random) -> Pair:
    """A person by trade: ("die Ärztin", "the doctor")."""
    noun = rng.choice(lex.ROLES)
    return Pair(f"{noun.article} {noun.de}", f"the {noun.en}")


def person(rng: random.Random) -> Pair:
    """A person by name or by trade."""
    if rng.random() < 0.5:
        name = rng.choice(lex.NAMES)
        return Pair(name, name)
    return role(rng)


def participle(verb: Verb) -> str:
    """The German past participle with its prefix: "ausgedruckt"."""
    return verb.prefix + verb.participle


def infinitive(verb: Verb) -> str:
    """The German infinitive with its prefix: "ausdrucken"."""
    return verb.prefix + verb.infinitive
