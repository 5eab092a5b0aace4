"""The English grammar of the embedded default: patterns with slots that the listener cannot guess."""

# Word lists read better as one string than as a list of quoted words.
# ruff: noqa: SIM905

import random

from num2words import num2words

from trainers.embedded.grammar import fill, pattern

NAMES = (
    "anna peter oliver emma jack sophie thomas lucy henry grace daniel alice martin julia samuel ruby arthur hannah "
    "george clara edward ivy frank nora walter molly simon rose victor helen"
).split()
CITIES = (
    "london oxford leeds bristol york dover glasgow cardiff dublin paris rome berlin boston chicago toronto sydney "
    "liverpool cambridge brighton norwich"
).split()
MONTHS = "january february march april may june july august september october november december".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
COLOURS = "red blue green yellow black white grey brown purple orange".split()
QUALITIES = (
    "big small old new heavy light expensive cheap beautiful ugly strange round narrow broken clean dirty simple "
    "lovely tiny modern wooden silver"
).split()
READING_QUALITIES = "old new long short strange beautiful boring funny sad important secret thick".split()
# singular, plural
THINGS = [
    ("bicycle", "bicycles"), ("lamp", "lamps"), ("table", "tables"), ("chair", "chairs"), ("coat", "coats"),
    ("umbrella", "umbrellas"), ("clock", "clocks"), ("guitar", "guitars"), ("camera", "cameras"), ("mirror", "mirrors"),
    ("bag", "bags"), ("knife", "knives"), ("key", "keys"), ("cup", "cups"), ("tent", "tents"), ("cupboard", "cupboards"),
    ("carpet", "carpets"), ("boat", "boats"), ("hat", "hats"), ("ring", "rings"), ("pillow", "pillows"),
    ("box", "boxes"), ("bucket", "buckets"), ("ladder", "ladders"), ("vase", "vases"), ("painting", "paintings"),
    ("engine", "engines"), ("shovel", "shovels"), ("suitcase", "suitcases"), ("violin", "violins"),
]  # fmt: skip
READINGS = [
    ("book", "books"), ("letter", "letters"), ("newspaper", "newspapers"), ("poem", "poems"), ("report", "reports"),
    ("story", "stories"), ("recipe", "recipes"), ("diary", "diaries"), ("article", "articles"),
]  # fmt: skip
PEOPLE = [
    ("teacher", "teachers"), ("doctor", "doctors"), ("baker", "bakers"), ("farmer", "farmers"), ("nurse", "nurses"),
    ("neighbour", "neighbours"), ("cook", "cooks"), ("judge", "judges"), ("fisherman", "fishermen"),
    ("painter", "painters"), ("sailor", "sailors"), ("student", "students"), ("tourist", "tourists"),
    ("gardener", "gardeners"), ("singer", "singers"), ("engineer", "engineers"), ("child", "children"),
    ("driver", "drivers"),
]  # fmt: skip
ANIMALS = [
    ("dog", "dogs"), ("cat", "cats"), ("horse", "horses"), ("cow", "cows"), ("sheep", "sheep"), ("pig", "pigs"),
    ("rabbit", "rabbits"), ("duck", "ducks"), ("goat", "goats"), ("chicken", "chickens"), ("mouse", "mice"),
    ("swan", "swans"),
]  # fmt: skip
FOODS = "bread cheese soup rice fish honey butter pasta salad chocolate jam salt sugar flour beans potatoes".split()
DRINKS = "water milk coffee tea juice wine beer lemonade".split()
# base, third person present, past, participle; the object is a thing
THING_VERBS = [
    ("buy", "buys", "bought", "bought"), ("sell", "sells", "sold", "sold"), ("find", "finds", "found", "found"),
    ("fetch", "fetches", "fetched", "fetched"), ("repair", "repairs", "repaired", "repaired"),
    ("paint", "paints", "painted", "painted"), ("lose", "loses", "lost", "lost"),
    ("borrow", "borrows", "borrowed", "borrowed"), ("wash", "washes", "washed", "washed"),
    ("draw", "draws", "drew", "drawn"), ("carry", "carries", "carried", "carried"), ("hide", "hides", "hid", "hidden"),
    ("choose", "chooses", "chose", "chosen"), ("steal", "steals", "stole", "stolen"),
]  # fmt: skip
READING_VERBS = [
    ("read", "reads", "read", "read"), ("write", "writes", "wrote", "written"), ("print", "prints", "printed", "printed"),
    ("translate", "translates", "translated", "translated"), ("keep", "keeps", "kept", "kept"),
]  # fmt: skip
PERSON_VERBS = [
    ("visit", "visits", "visited", "visited"), ("help", "helps", "helped", "helped"), ("call", "calls", "called", "called"),
    ("meet", "meets", "met", "met"), ("thank", "thanks", "thanked", "thanked"),
    ("follow", "follows", "followed", "followed"), ("invite", "invites", "invited", "invited"),
]  # fmt: skip
ROOMS = (
    "in the kitchen|in the garden|at the station|on the bridge|behind the church|near the river|in the attic|"
    "at the market|under the stairs|next to the school|in the forest|on the beach|outside the library|in the cellar|"
    "opposite the museum|beside the lake|in the waiting room|at the airport"
).split("|")
PAST_TIMES = (
    "yesterday|last night|last week|this morning|two days ago|last summer|last winter|an hour ago|on my birthday"
).split("|")
FUTURE_TIMES = "tomorrow|next week|tonight|next month|this afternoon|next year|after the holidays".split("|")
HABITS = "every morning|every evening|once a week|now and then|on weekdays|in the winter|twice a month".split("|")
RELATIVES = "mother father brother sister uncle aunt cousin grandmother grandfather daughter son".split()
POSSESSIVES = "my your his her our their".split()
WEATHER = "cold warm windy cloudy sunny wet foggy dry icy stormy".split()
COMPARATIVES = "bigger smaller older newer heavier lighter cheaper uglier cleaner stronger longer shorter".split()
DIGITS = "zero one two three four five six seven eight nine".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
).split()
UNITS = "kilos of|bags of|boxes of|pounds of".split("|")

COUNTED = ANIMALS + THINGS


def number(value: int) -> str:
    """`value` (0 to 99) in words without a hyphen."""
    return str(num2words(value, lang="en")).replace("-", " ")


def with_article(phrase: str) -> str:
    """The phrase behind "a" or "an". No word of this grammar breaks the rule of the letter."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def adjective(rng: random.Random) -> str:
    return rng.choice(QUALITIES if rng.random() < 0.6 else COLOURS)


def noun_phrase(rng: random.Random, nouns: list[tuple[str, str]]) -> str:
    """An object: indefinite, definite, possessive or counted."""
    singular, plural = rng.choice(nouns)
    quality = rng.choice(READING_QUALITIES) if nouns is READINGS else adjective(rng)
    described = f"{quality} {singular}" if rng.random() < 0.7 else singular
    kind = rng.random()
    if kind < 0.35:
        return with_article(described)
    if kind < 0.6:
        return f"the {described}"
    if kind < 0.75:
        return f"{rng.choice(POSSESSIVES)} {described}"
    if kind < 0.85:
        return f"{rng.choice(NAMES)}'s {described}"
    return f"{number(rng.randint(2, 99))} {plural}"


def action(rng: random.Random) -> tuple[tuple[str, str, str, str], str]:
    """A verb and an object that suits it."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(THING_VERBS), noun_phrase(rng, THINGS)
    if kind < 0.8:
        return rng.choice(READING_VERBS), noun_phrase(rng, READINGS)
    singular = rng.choice(PEOPLE)[0]
    return rng.choice(PERSON_VERBS), f"the {rng.choice(('old', 'young', 'new', 'tired', 'friendly'))} {singular}"


def question(rng: random.Random) -> str:
    verb, thing = action(rng)
    opening = rng.choice(("why did", "when did", "did", "where did", "how did"))
    end = "{PAST_TIMES}" if opening == "where did" else "{place}"
    return fill(f"{opening} {{subject}} {verb[0]} {thing} {end}", globals(), rng)


subject = pattern("{NAMES}", "the {PEOPLE.0}", "{POSSESSIVES} {RELATIVES}", odds=(0.5, 0.75))
place = pattern("{ROOMS}", "in {CITIES}", odds=(0.6,))
clock = pattern(
    "at {{hour} o'clock|half past {hour}|a quarter to {hour}|a quarter past {hour}"
    "|{five|ten|twenty} past {hour}|{five|ten|twenty} to {hour}}",
    hour="{1-12}",
)
past_event = pattern("{PAST_TIMES} {event}", "{event}", event="{subject} {verb.2} {thing} {place}")
future = pattern(
    "{event} {FUTURE_TIMES}",
    "{event} on {DAYS} {clock}",
    event="{subject} {will|must|can|wants to|is going to} {verb.0} {thing}",
)
PATTERNS = (
    *[past_event] * 3,
    pattern("{subject} has {already|just|never|finally|not} {verb.3} {thing}"),
    pattern("{subject} {often|always|sometimes|never} {verb.1} {thing} {place}"),
    *[future] * 2,
    pattern(
        "{i think that|everybody knows that|we hope that|it is a pity that|they say that} {subject} "
        "{will|cannot|must|will not} {verb.0} {thing}"
    ),
    question,
    pattern(
        "the {train|bus|plane|ferry} from {first} to {second} {leaves|arrives|is late today and leaves} {clock}",
        two="CITIES",
    ),
    pattern("there {are|were} {2-99} {COUNTED.1} {ROOMS}"),
    pattern("{subject} is {2-99} years old and {does} {CITIES}", does="{lives in|works in|was born in|comes from}"),
    pattern(
        "{DAYS} will be {first} and {second} {where} with {2-35} degrees",
        two="WEATHER",
        where="{in {CITIES}|in the north|in the south|by the coast|in the mountains}",
    ),
    pattern(
        "if {it rains|the sun shines|it snows|we have time|the shop is closed} on {DAYS} {subject} will {verb.0} {thing}"
    ),
    pattern(
        "the {adjective} {THINGS.0} {costs|costs only|will cost} {cost} {place}", cost="{2-99} {pounds|dollars|euros}"
    ),
    pattern(
        "{we need|please bring|i would like|they ordered} {food} and {drink}",
        food="{2-20} {UNITS} {FOODS}",
        drink="{a bottle of|a glass of|some|a cup of} {DRINKS}",
    ),
    pattern("the {adjective} {first.0} is {COMPARATIVES} than {POSSESSIVES} {second.0}", two="THINGS"),
    pattern(
        "on the {ORDINALS} of {MONTHS} {event} {clock}",
        event="{the museum opens|the school closes|the concert begins|the holiday starts|the exam ends}",
    ),
    pattern("{{NAMES}'s|the doctor's|the hotel's|my uncle's} {number|code|room number} is {digits}"),
    pattern(
        "{please put|could you put|do not leave|she left} {object} {place} before {DAYS}",
        object="the {adjective} {THINGS.0}",
    ),
    pattern(
        "{first} and {second} {walked|swam|waited|talked|sang|danced|worked|slept} {ROOMS} until {DAYS} {morning|evening}",
        two="NAMES",
    ),
    pattern(
        "{NAMES}'s {adjective} {animal} {does} {ROOMS} {HABITS}",
        animal="{ANIMALS.0}",
        does="{sleeps|hides|waits|eats|runs|plays}",
    ),
    pattern(
        "{subject} {does} {first} with {second} and drinks {DRINKS} {HABITS}",
        two="FOODS",
        does="{eats|cooks|buys|likes|shares}",
    ),
)
