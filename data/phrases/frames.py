"""The sentence frames: each draws one German-English pair whose word orders differ."""

from __future__ import annotations

import random
from collections.abc import Callable

import cldr
import lexicon as lex
from lexicon import Pair
from parts import document, infinitive, participle, person, phrase, role, sentence

PAST = lex.PAST_TIMES + cldr.ON_DAY + cldr.IN_MONTH
FUTURE = lex.FUTURE_TIMES + cldr.ON_DAY + cldr.IN_MONTH
VERBS = lex.PLAIN_VERBS + lex.SEPARABLE_VERBS
COUNTED_YEARS = (1950, 2029)  # inclusive; few enough to be seen often
FOOD_UNITS = (
    ("mass-kilogram", lex.DRY_FOODS),
    ("mass-gram", lex.DRY_FOODS),
    ("volume-liter", lex.LIQUIDS),
)
DURATIONS = ("day", "week", "month", "year")


def departure(rng: random.Random) -> Pair:
    """Separable verb around the whole predicate."""
    train, city, time = rng.choice(lex.TRAINS), rng.choice(cldr.CITIES), cldr.draw_time(rng)
    platform = cldr.words(rng.randrange(2, 21))
    return sentence(
        f"der {train.de} nach {city.de} fährt um {time.de} Uhr von Gleis {platform.de} ab.",
        f"the {train.en} to {city.en} departs from platform {platform.en} at {time.en}.",
    )


def counted_goods(rng: random.Random) -> Pair:
    """Perfect tense with the participle at the end, and a number in words."""
    who, when, verb = person(rng), rng.choice(PAST), rng.choice(lex.GOODS_VERBS)
    number, goods = cldr.words(cldr.draw_number(rng, 4)), rng.choice(lex.GOODS)
    return sentence(
        f"{who.de} hat {when.de} {number.de} {goods.de} {verb.de}.",
        f"{who.en} {verb.en} {number.en} {goods.en} {when.en}.",
    )


def modal(rng: random.Random) -> Pair:
    """Adverbial first, finite verb second, infinitive last."""
    who, when, what = person(rng), rng.choice(FUTURE), document(rng, accusative=True)
    can, verb = rng.choice(lex.MODALS), rng.choice(VERBS)
    return sentence(
        f"{when.de} {can.de} {who.de} {what.de} {infinitive(verb)}.",
        f"{who.en} {can.en} {verb.base} {what.en} {when.en}.",
    )


def because(rng: random.Random) -> Pair:
    """Verb-final clause with a modal after its infinitive."""
    name, state = rng.choice(lex.NAMES), rng.choice(lex.STATES)
    who, can = role(rng), rng.choice(lex.MODALS)
    what, verb = document(rng, accusative=True), rng.choice(VERBS)
    return sentence(
        f"{name} {state.de}, weil {who.de} {what.de} {infinitive(verb)} {can.de}.",
        f"{name} {state.en} because {who.en} {can.en} {verb.base} {what.en}.",
    )


def cost(rng: random.Random) -> Pair:
    """Amount in figures, with the separators of the locale, after the place."""
    what, country = document(rng), rng.choice(cldr.COUNTRIES)
    code, amount = rng.choice(tuple(cldr.CURRENCIES)), cldr.draw_number(rng, 4)
    price = cldr.price(100 * amount + rng.choice((0, 25, 50, 75, 95)), code)
    return sentence(
        f"{what.de} kostet in {country.de} {price.de}.",
        f"{what.en} costs {price.en} in {country.en}.",
    )


def journey(rng: random.Random) -> Pair:
    """CLDR's relative time: "vor" before the number, "ago" after it."""
    who, city, verb = person(rng), rng.choice(cldr.CITIES), rng.choice(lex.TRAVEL_VERBS)
    since = cldr.ago(rng.randrange(2, 60), rng.choice(DURATIONS))
    return sentence(
        f"{since.de} ist {who.de} nach {city.de} {verb.participle}.",
        f"{who.en} {verb.past} to {city.en} {since.en}.",
    )


def residence(rng: random.Random) -> Pair:
    """German present tense with "seit" for the English perfect."""
    who, year = person(rng), rng.randint(*COUNTED_YEARS)
    country, language = rng.choice(cldr.COUNTRIES), rng.choice(cldr.LANGUAGES)
    return sentence(
        f"seit {year} wohnt {who.de} in {country.de} und spricht fließend {language.de}.",
        f"{who.en} has lived in {country.en} since {year} and speaks fluent {language.en}.",
    )


def relative_clause(rng: random.Random) -> Pair:
    """Relative clause whose pronoun agrees with the noun; perfect tense, auxiliary last."""
    who, when, what = role(rng), rng.choice(PAST), document(rng, accusative=True)
    verb, pronoun = rng.choice(VERBS), who.de.split()[0]
    return sentence(
        f"das ist {who.de}, {pronoun} {when.de} {what.de} {participle(verb)} hat.",
        f"this is {who.en} who {verb.past} {what.en} {when.en}.",
    )


def distance(rng: random.Random) -> Pair:
    """Number in words with a unit, after two places."""
    start, end = rng.sample(cldr.CITIES, 2)
    vehicle = rng.choice(lex.VEHICLES)
    unit = rng.choice(("length-kilometer", "length-mile"))
    length = cldr.quantity(cldr.draw_number(rng, 4), unit)
    return sentence(
        f"mit dem {vehicle.de} sind es von {start.de} nach {end.de} {length.de}.",
        f"by {vehicle.en} it is {length.en} from {start.en} to {end.en}.",
    )


def visitors(rng: random.Random) -> Pair:
    """Year first and verb second; the long numbers, below one million."""
    year, house = rng.randint(*COUNTED_YEARS), rng.choice(lex.BUILDINGS)
    city, number = rng.choice(cldr.CITIES), cldr.words(cldr.draw_number(rng, 6))
    return sentence(
        f"im Jahr {year} hatte {house.article} {house.de} in {city.de} {number.de} Besucher.",
        f"the {house.en} in {city.en} had {number.en} visitors in {year}.",
    )


def belief(rng: random.Random) -> Pair:
    """Clause with "dass", perfect tense, auxiliary last."""
    name, belief_verb, who = rng.choice(lex.NAMES), rng.choice(lex.BELIEFS), role(rng)
    when, what, verb = rng.choice(PAST), document(rng, accusative=True), rng.choice(VERBS)
    return sentence(
        f"{name} {belief_verb.de}, dass {who.de} {when.de} {what.de} {participle(verb)} hat.",
        f"{name} {belief_verb.en} that {who.en} {verb.past} {what.en} {when.en}.",
    )


def question(rng: random.Random) -> Pair:
    """Question in the perfect tense; English asks with "did"."""
    who, when, what = person(rng), rng.choice(PAST), document(rng, accusative=True)
    verb = rng.choice(VERBS)
    return sentence(
        f"warum hat {who.de} {when.de} {what.de} {participle(verb)}?",
        f"why did {who.en} {verb.base} {what.en} {when.en}?",
    )


def opening(rng: random.Random) -> Pair:
    """Full date first, passive with the participle last."""
    day, city = cldr.date(cldr.draw_date(rng, 2030, 2049), "full"), rng.choice(cldr.CITIES)
    house = phrase(rng.choice(lex.BUILDINGS), rng.choice(lex.BUILDING_ADJECTIVES))
    verb = rng.choice(lex.BUILDING_VERBS)
    weekday, rest = day.de.split(", ")
    return sentence(
        f"am {weekday}, dem {rest}, wird {house.de} in {city.de} {verb.de}.",
        f"{house.en} in {city.en} will be {verb.en} on {day.en}.",
    )


def condition(rng: random.Random) -> Pair:
    """Verb-final condition, then inversion with a separable verb."""
    name, state, who = rng.choice(lex.NAMES), rng.choice(lex.CONDITIONS), role(rng)
    verb, what = rng.choice(lex.SEPARABLE_VERBS), document(rng, accusative=True)
    return sentence(
        f"wenn {name} {state.de}, {verb.third} {who.de} {what.de} {verb.prefix}.",
        f"if {name} {state.en}, {who.en} {verb.third_en} {what.en}.",
    )


def supplies(rng: random.Random) -> Pair:
    """Two numbers in words and a unit; German has no "of"."""
    unit, foods = rng.choice(FOOD_UNITS)
    amount, food = cldr.quantity(cldr.draw_number(rng, 3), unit), rng.choice(foods)
    number, people = cldr.words(rng.randrange(2, 21)), rng.choice(lex.PEOPLE)
    return sentence(
        f"{amount.de} {food.de} reichen für {number.de} {people.de}.",
        f"{amount.en} of {food.en} is enough for {number.en} {people.en}.",
    )


def temperature(rng: random.Random) -> Pair:
    """Time of day on the 24-hour clock against AM and PM."""
    time, city = cldr.draw_time(rng), rng.choice(cldr.CITIES)
    degrees = cldr.quantity(rng.randrange(2, 40), "temperature-celsius")
    return sentence(
        f"um {time.de} Uhr waren es in {city.de} {degrees.de}.",
        f"at {time.en} it was {degrees.en} in {city.en}.",
    )


def birthday(rng: random.Random) -> Pair:
    """Possessive that agrees with the subject, and an ordinal in words."""
    noun, number = rng.choice(lex.ROLES), cldr.ordinal_words(rng.randrange(20, 100))
    day = cldr.day_of_year(cldr.draw_date(rng, 2000, 2000))  # a leap year: all 366 days
    his_de, his_en = ("seinen", "his") if noun.article == "der" else ("ihren", "her")
    return sentence(
        f"{noun.article} {noun.de} feiert am {day.de} {his_de} {number.de}n Geburtstag.",
        f"the {noun.en} celebrates {his_en} {number.en} birthday on {day.en}.",
    )


def translation(rng: random.Random) -> Pair:
    """Languages as inflected nouns; "aus dem ... ins ..."."""
    who, what = person(rng), document(rng, accusative=True)
    source, target = rng.sample(cldr.LANGUAGES, 2)
    return sentence(
        f"{who.de} hat {what.de} aus dem {source.de}en ins {target.de}e übersetzt.",
        f"{who.en} translated {what.en} from {source.en} into {target.en}.",
    )


FRAMES: tuple[Callable[[random.Random], Pair], ...] = (
    departure,
    counted_goods,
    modal,
    because,
    cost,
    journey,
    residence,
    relative_clause,
    distance,
    visitors,
    belief,
    question,
    opening,
    condition,
    supplies,
    temperature,
    birthday,
    translation,
)
