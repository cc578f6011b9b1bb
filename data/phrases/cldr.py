"""What the libraries know: CLDR data through Babel, and numbers in words through num2words."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable

from babel import Locale, dates, numbers, units
from lexicon import Pair
from num2words import num2words

SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " "})  # CLDR's no-break spaces
# Cities are known to CLDR by their time zones.
CITY_ZONES = """
    Europe/Vienna Europe/Rome Europe/Paris Europe/London Europe/Berlin Europe/Prague
    Europe/Warsaw Europe/Lisbon Europe/Athens Europe/Brussels Europe/Moscow Europe/Oslo
    Europe/Copenhagen Europe/Bucharest Europe/Zurich Europe/Belgrade Africa/Cairo Asia/Tokyo
    Asia/Damascus Africa/Algiers Asia/Baghdad Asia/Singapore America/Havana Asia/Tehran
    Asia/Tbilisi Asia/Yerevan
"""
# Countries that take no article in either language.
COUNTRY_CODES = """
    AT DE FR IT ES PT BE DK SE NO FI IS IE PL CZ HU RO BG GR HR EE LV LT EG MA KE ZA IN CN JP KR
    TH ID AU NZ CA MX BR CL PE
"""
# Languages whose German name ends in -sch, so that it can be inflected by rule.
LANGUAGE_CODES = """
    de en fr it es pt nl da sv fi is pl cs hu ro bg el hr sl et lv lt ar tr fa zh ja ko vi ru ka hy
"""
CURRENCY_CODES = "EUR USD GBP JPY CHF SEK NOK DKK PLN CZK CAD AUD INR KRW MXN"
SECONDS_PER_UNIT = dict(dates.TIMEDELTA_UNITS)
LONGER = 0.35  # probability that a number gets one more digit
NO_THRESHOLD = 10**9  # keeps Babel from turning 60 minutes into an hour


def plain(text: str) -> str:
    """Turns the exotic spaces of CLDR into plain ones."""
    return text.translate(SPACES)


def both(render: Callable[[str], str]) -> Pair:
    """Renders one thing in both locales."""
    return Pair(plain(render("de")), plain(render("en")))


def _named(kind: str, codes: str) -> tuple[Pair, ...]:
    german, english = getattr(Locale("de"), kind), getattr(Locale("en"), kind)
    return tuple(Pair(german[code], english[code]) for code in codes.split())


def _city(zone: str) -> Pair:
    return both(lambda lang: dates.get_timezone_location(zone, locale=lang, return_city=True))


def _currency(code: str) -> Pair:
    name = both(lambda lang: numbers.get_currency_name(code, count=5, locale=lang))
    if " " in name.de and name.de.split()[0].endswith("e"):  # an adjective, lower case in a text
        name = name._replace(de=name.de[0].lower() + name.de[1:])
    return name


def _calendar(de: str, en: str, names: Callable[..., dict[int, str]], index: int) -> Pair:
    name = both(lambda lang: names(locale=lang)[index])
    return Pair(f"{de} {name.de}", f"{en} {name.en}")


COUNTRIES = _named("territories", COUNTRY_CODES)
LANGUAGES = _named("languages", LANGUAGE_CODES)
CITIES = tuple(_city(zone) for zone in CITY_ZONES.split())
CURRENCIES = {code: _currency(code) for code in CURRENCY_CODES.split()}
ON_DAY = tuple(_calendar("am", "on", dates.get_day_names, day) for day in range(7))
IN_MONTH = tuple(_calendar("im", "in", dates.get_month_names, month) for month in range(1, 13))


def words(number: int) -> Pair:
    """A cardinal number in words: 42 is ("zweiundvierzig", "forty-two")."""
    return both(lambda lang: num2words(number, lang=lang))


def ordinal_words(number: int) -> Pair:
    """An ordinal in words, German nominative: 42 is ("zweiundvierzigste", "forty-second")."""
    return both(lambda lang: num2words(number, lang=lang, to="ordinal"))


def draw_number(rng: random.Random, longest: int) -> int:
    """A number of 2 to `longest` digits, most of them short.

    Numbers that end in 01 are left out: their German form before a noun is disputed.
    """
    digits = 2
    while digits < longest and rng.random() < LONGER:
        digits += 1
    number = rng.randrange(10 ** (digits - 1), 10**digits)
    return number + 1 if number % 100 == 1 else number


def draw_date(rng: random.Random, first_year: int, last_year: int) -> datetime.date:
    """A day of the years from `first_year` to `last_year`."""
    first = datetime.date(first_year, 1, 1)
    days = (datetime.date(last_year + 1, 1, 1) - first).days
    return first + datetime.timedelta(days=rng.randrange(days))


def date(day: datetime.date, style: str) -> Pair:
    """A date in the CLDR style "long" (no weekday) or "full" (with one)."""
    return both(lambda lang: dates.format_date(day, style, locale=lang))


def day_of_year(day: datetime.date) -> Pair:
    """A date without its year: ("4. März", "March 4")."""
    return Pair(
        plain(dates.format_date(day, "d. MMMM", locale="de")),
        plain(dates.format_date(day, "MMMM d", locale="en")),
    )


def draw_time(rng: random.Random) -> Pair:
    """A time of day in steps of five minutes: ("14:05", "2:05 PM")."""
    minutes = 5 * rng.randrange(24 * 12)
    time = datetime.time(minutes // 60, minutes % 60)
    return both(lambda lang: dates.format_time(time, "short", locale=lang))


def ago(number: int, unit: str) -> Pair:
    """CLDR's relative time with the number in words: ("vor drei Tagen", "three days ago")."""
    delta = datetime.timedelta(seconds=-number * SECONDS_PER_UNIT[unit])

    def render(lang: str) -> str:
        text = dates.format_timedelta(
            delta, unit, threshold=NO_THRESHOLD, add_direction=True, locale=lang
        )
        return text.replace(str(number), num2words(number, lang=lang))

    return both(render)


def quantity(number: int, unit: str) -> Pair:
    """A number in words with a CLDR unit: ("drei Kilogramm", "three kilograms")."""

    def render(lang: str) -> str:
        text = units.format_unit(number, unit, "long", locale=lang)
        figures = numbers.format_decimal(number, locale=lang)
        return text.replace(figures, num2words(number, lang=lang))

    return both(render)


def price(cents: int, code: str) -> Pair:
    """An amount in figures, with as many decimals as the currency has, and the currency's name."""
    pattern = "#,##0.00" if numbers.get_currency_precision(code) else "#,##0"
    amount = both(lambda lang: numbers.format_decimal(cents / 100, pattern, locale=lang))
    name = CURRENCIES[code]
    return Pair(f"{amount.de} {name.de}", f"{amount.en} {name.en}")
