"""The closed word lists of the demo corpus; every entry is one German-English pair."""

from __future__ import annotations

from typing import NamedTuple


class Pair(NamedTuple):
    """A German text and its only English translation."""

    de: str
    en: str


class Noun(NamedTuple):
    """A singular noun; `article` is the German nominative one and so tells the gender."""

    article: str
    de: str
    en: str


class Verb(NamedTuple):
    """A transitive verb; `third` is the German finite form without its separable `prefix`."""

    infinitive: str
    third: str
    participle: str
    base: str
    past: str
    third_en: str
    prefix: str = ""


class TravelVerb(NamedTuple):
    """A verb of motion that takes `sein` in the perfect tense."""

    participle: str
    past: str


NAMES = (
    *("Anna", "Lena", "Mia", "Clara", "Nina", "Greta", "Ida", "Marta", "Vera", "Julia"),
    *("Jonas", "Paul", "Felix", "Oskar", "Emil", "Hugo", "Leo", "Simon", "Tom", "David"),
)

ROLES = (
    Noun("der", "Lehrer", "teacher"),
    Noun("die", "Ärztin", "doctor"),
    Noun("der", "Bäcker", "baker"),
    Noun("die", "Richterin", "judge"),
    Noun("der", "Gärtner", "gardener"),
    Noun("die", "Köchin", "cook"),
    Noun("der", "Fahrer", "driver"),
    Noun("die", "Nachbarin", "neighbor"),
    Noun("der", "Maler", "painter"),
    Noun("die", "Sängerin", "singer"),
    Noun("der", "Händler", "trader"),
    Noun("die", "Schülerin", "pupil"),
    Noun("der", "Bürgermeister", "mayor"),
    Noun("die", "Architektin", "architect"),
    Noun("der", "Kapitän", "captain"),
    Noun("die", "Tante", "aunt"),
)

# A document is modifier + head, one compound in German and two words in English.
MODIFIERS = (
    Pair("Sommer", "summer"),
    Pair("Winter", "winter"),
    Pair("Dorf", "village"),
    Pair("Schul", "school"),
    Pair("Wetter", "weather"),
    Pair("Hafen", "harbor"),
    Pair("Museums", "museum"),
    Pair("Reise", "travel"),
    Pair("Sport", "sports"),
    Pair("Theater", "theater"),
    Pair("Garten", "garden"),
    Pair("Bibliotheks", "library"),
    Pair("Wochen", "weekly"),
    Pair("Firmen", "company"),
)
HEADS = (
    Noun("der", "plan", "plan"),
    Noun("der", "bericht", "report"),
    Noun("der", "vertrag", "contract"),
    Noun("der", "brief", "letter"),
    Noun("die", "karte", "map"),
    Noun("die", "liste", "list"),
    Noun("die", "zeitung", "newspaper"),
    Noun("das", "buch", "book"),
    Noun("das", "heft", "notebook"),
    Noun("das", "programm", "program"),
)
ADJECTIVES = (
    Pair("neu", "new"),
    Pair("alt", "old"),
    Pair("lang", "long"),
    Pair("kurz", "short"),
    Pair("wichtig", "important"),
    Pair("rot", "red"),
    Pair("blau", "blue"),
    Pair("dünn", "thin"),
)
BUILDINGS = (
    Noun("das", "Museum", "museum"),
    Noun("die", "Schule", "school"),
    Noun("das", "Theater", "theater"),
    Noun("die", "Bibliothek", "library"),
    Noun("das", "Krankenhaus", "hospital"),
    Noun("der", "Bahnhof", "station"),
    Noun("das", "Hotel", "hotel"),
    Noun("die", "Fabrik", "factory"),
    Noun("der", "Markt", "market"),
    Noun("die", "Brücke", "bridge"),
)
BUILDING_ADJECTIVES = (
    Pair("neu", "new"),
    Pair("alt", "old"),
    Pair("klein", "small"),
    Pair("groß", "large"),
)

PLAIN_VERBS = (
    Verb("lesen", "liest", "gelesen", "read", "read", "reads"),
    Verb("kaufen", "kauft", "gekauft", "buy", "bought", "buys"),
    Verb("suchen", "sucht", "gesucht", "look for", "looked for", "looks for"),
    Verb("finden", "findet", "gefunden", "find", "found", "finds"),
    Verb("verkaufen", "verkauft", "verkauft", "sell", "sold", "sells"),
    Verb("prüfen", "prüft", "geprüft", "check", "checked", "checks"),
    Verb("übersetzen", "übersetzt", "übersetzt", "translate", "translated", "translates"),
    Verb("kopieren", "kopiert", "kopiert", "copy", "copied", "copies"),
    Verb("schicken", "schickt", "geschickt", "send", "sent", "sends"),
    Verb("bestellen", "bestellt", "bestellt", "order", "ordered", "orders"),
)
SEPARABLE_VERBS = (
    Verb("drucken", "druckt", "gedruckt", "print out", "printed out", "prints out", "aus"),
    Verb("holen", "holt", "geholt", "pick up", "picked up", "picks up", "ab"),
    Verb("werfen", "wirft", "geworfen", "throw away", "threw away", "throws away", "weg"),
    Verb("geben", "gibt", "gegeben", "give back", "gave back", "gives back", "zurück"),
    Verb("schauen", "schaut", "geschaut", "look at", "looked at", "looks at", "an"),
    Verb("bringen", "bringt", "gebracht", "bring along", "brought along", "brings along", "mit"),
    Verb("packen", "packt", "gepackt", "pack", "packed", "packs", "ein"),
    Verb("laden", "lädt", "geladen", "upload", "uploaded", "uploads", "hoch"),
    Verb("leihen", "leiht", "geliehen", "borrow", "borrowed", "borrows", "aus"),
    Verb("fordern", "fordert", "gefordert", "request", "requested", "requests", "an"),
)
GOODS_VERBS = (
    Pair("gekauft", "bought"),
    Pair("verkauft", "sold"),
    Pair("gefunden", "found"),
    Pair("gezählt", "counted"),
    Pair("bestellt", "ordered"),
    Pair("verteilt", "distributed"),
)
TRAVEL_VERBS = (
    TravelVerb("gereist", "traveled"),
    TravelVerb("geflogen", "flew"),
    TravelVerb("gezogen", "moved"),
    TravelVerb("zurückgekehrt", "returned"),
)
BUILDING_VERBS = (
    Pair("eröffnet", "opened"),
    Pair("geschlossen", "closed"),
    Pair("renoviert", "renovated"),
    Pair("verkauft", "sold"),
)
MODALS = (
    Pair("muss", "has to"),
    Pair("will", "wants to"),
    Pair("kann", "can"),
    Pair("darf", "is allowed to"),
)
BELIEFS = (
    Pair("glaubt", "believes"),
    Pair("sagt", "says"),
    Pair("weiß", "knows"),
    Pair("hofft", "hopes"),
)
STATES = (
    Pair("bleibt zu Hause", "is staying at home"),
    Pair("kommt später", "is coming later"),
    Pair("ist sehr froh", "is very happy"),
    Pair("wartet noch", "is still waiting"),
)
CONDITIONS = (
    Pair("krank ist", "is ill"),
    Pair("keine Zeit hat", "has no time"),
    Pair("später kommt", "comes later"),
    Pair("zu Hause bleibt", "stays at home"),
)

GOODS = (
    Pair("Bücher", "books"),
    Pair("Äpfel", "apples"),
    Pair("Stühle", "chairs"),
    Pair("Fahrkarten", "tickets"),
    Pair("Lampen", "lamps"),
    Pair("Fahrräder", "bicycles"),
    Pair("Schlüssel", "keys"),
    Pair("Eier", "eggs"),
    Pair("Bilder", "pictures"),
    Pair("Flaschen", "bottles"),
    Pair("Blumen", "flowers"),
    Pair("Hemden", "shirts"),
)
DRY_FOODS = (
    Pair("Mehl", "flour"),
    Pair("Reis", "rice"),
    Pair("Zucker", "sugar"),
    Pair("Käse", "cheese"),
    Pair("Brot", "bread"),
)
LIQUIDS = (
    Pair("Milch", "milk"),
    Pair("Wasser", "water"),
    Pair("Suppe", "soup"),
    Pair("Saft", "juice"),
    Pair("Tee", "tea"),
)
PEOPLE = (
    Pair("Personen", "people"),
    Pair("Gäste", "guests"),
    Pair("Kinder", "children"),
    Pair("Reisende", "travelers"),
)
TRAINS = (
    Pair("Zug", "train"),
    Pair("Nachtzug", "night train"),
    Pair("Schnellzug", "express train"),
    Pair("Sonderzug", "special train"),
)
VEHICLES = (Pair("Zug", "train"), Pair("Bus", "bus"), Pair("Auto", "car"))
PAST_TIMES = (
    Pair("gestern", "yesterday"),
    Pair("gestern Abend", "yesterday evening"),
    Pair("letzte Woche", "last week"),
    Pair("letztes Jahr", "last year"),
)
FUTURE_TIMES = (
    Pair("heute", "today"),
    Pair("morgen", "tomorrow"),
    Pair("morgen Abend", "tomorrow evening"),
    Pair("nächste Woche", "next week"),
    Pair("nächstes Jahr", "next year"),
)
