"""The English grammar of the embedded default: patterns with slots that the listener cannot guess."""

# Word lists read better as one string than as a list of quoted words.
# ruff: noqa: SIM905

import random
from collections.abc import Callable

from num2words import num2words

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


def subject(rng: random.Random) -> str:
    """A third person singular subject."""
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(NAMES)
    if kind < 0.75:
        return f"the {rng.choice(PEOPLE)[0]}"
    return f"{rng.choice(POSSESSIVES)} {rng.choice(RELATIVES)}"


def action(rng: random.Random) -> tuple[tuple[str, str, str, str], str]:
    """A verb and an object that suits it."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(THING_VERBS), noun_phrase(rng, THINGS)
    if kind < 0.8:
        return rng.choice(READING_VERBS), noun_phrase(rng, READINGS)
    singular = rng.choice(PEOPLE)[0]
    return rng.choice(PERSON_VERBS), f"the {rng.choice(('old', 'young', 'new', 'tired', 'friendly'))} {singular}"


def clock(rng: random.Random) -> str:
    hour = number(rng.randint(1, 12))
    return rng.choice(
        (
            f"at {hour} o'clock", f"at half past {hour}", f"at a quarter to {hour}", f"at a quarter past {hour}",
            f"at {rng.choice(('five', 'ten', 'twenty'))} past {hour}", f"at {rng.choice(('five', 'ten', 'twenty'))} to {hour}",
        )
    )  # fmt: skip


def place(rng: random.Random) -> str:
    return rng.choice(ROOMS) if rng.random() < 0.6 else f"in {rng.choice(CITIES)}"


def past_event(rng: random.Random) -> str:
    verb, thing = action(rng)
    core = f"{subject(rng)} {verb[2]} {thing} {place(rng)}"
    return f"{rng.choice(PAST_TIMES)} {core}" if rng.random() < 0.5 else core


def perfect(rng: random.Random) -> str:
    verb, thing = action(rng)
    return f"{subject(rng)} has {rng.choice(('already', 'just', 'never', 'finally', 'not'))} {verb[3]} {thing}"


def habit(rng: random.Random) -> str:
    verb, thing = action(rng)
    return f"{subject(rng)} {rng.choice(('often', 'always', 'sometimes', 'never'))} {verb[1]} {thing} {place(rng)}"


def future(rng: random.Random) -> str:
    verb, thing = action(rng)
    core = f"{subject(rng)} {rng.choice(('will', 'must', 'can', 'wants to', 'is going to'))} {verb[0]} {thing}"
    return f"{core} {rng.choice(FUTURE_TIMES)}" if rng.random() < 0.5 else f"{core} on {rng.choice(DAYS)} {clock(rng)}"


def belief(rng: random.Random) -> str:
    verb, thing = action(rng)
    opening = rng.choice(("i think that", "everybody knows that", "we hope that", "it is a pity that", "they say that"))
    return f"{opening} {subject(rng)} {rng.choice(('will', 'cannot', 'must', 'will not'))} {verb[0]} {thing}"


def question(rng: random.Random) -> str:
    verb, thing = action(rng)
    opening = rng.choice(("why did", "when did", "did", "where did", "how did"))
    return (
        f"{opening} {subject(rng)} {verb[0]} {thing} {place(rng) if opening != 'where did' else rng.choice(PAST_TIMES)}"
    )


def train(rng: random.Random) -> str:
    start, end = rng.sample(CITIES, 2)
    vehicle = rng.choice(("train", "bus", "plane", "ferry"))
    return f"the {vehicle} from {start} to {end} {rng.choice(('leaves', 'arrives', 'is late today and leaves'))} {clock(rng)}"


def counting(rng: random.Random) -> str:
    return f"there {rng.choice(('are', 'were'))} {number(rng.randint(2, 99))} {rng.choice(ANIMALS + THINGS)[1]} {rng.choice(ROOMS)}"


def age(rng: random.Random) -> str:
    verb = rng.choice(("lives in", "works in", "was born in", "comes from"))
    return f"{subject(rng)} is {number(rng.randint(2, 99))} years old and {verb} {rng.choice(CITIES)}"


def weather(rng: random.Random) -> str:
    first, second = rng.sample(WEATHER, 2)
    where = rng.choice((f"in {rng.choice(CITIES)}", "in the north", "in the south", "by the coast", "in the mountains"))
    return f"{rng.choice(DAYS)} will be {first} and {second} {where} with {number(rng.randint(2, 35))} degrees"


def condition(rng: random.Random) -> str:
    verb, thing = action(rng)
    start = rng.choice(("it rains", "the sun shines", "it snows", "we have time", "the shop is closed"))
    return f"if {start} on {rng.choice(DAYS)} {subject(rng)} will {verb[0]} {thing}"


def price(rng: random.Random) -> str:
    cost = f"{number(rng.randint(2, 99))} {rng.choice(('pounds', 'dollars', 'euros'))}"
    return f"the {adjective(rng)} {rng.choice(THINGS)[0]} {rng.choice(('costs', 'costs only', 'will cost'))} {cost} {place(rng)}"


def shopping(rng: random.Random) -> str:
    food = f"{number(rng.randint(2, 20))} {rng.choice(UNITS)} {rng.choice(FOODS)}"
    drink = f"{rng.choice(('a bottle of', 'a glass of', 'some', 'a cup of'))} {rng.choice(DRINKS)}"
    return f"{rng.choice(('we need', 'please bring', 'i would like', 'they ordered'))} {food} and {drink}"


def comparison(rng: random.Random) -> str:
    first, second = rng.sample(THINGS, 2)
    return f"the {adjective(rng)} {first[0]} is {rng.choice(COMPARATIVES)} than {rng.choice(POSSESSIVES)} {second[0]}"


def date(rng: random.Random) -> str:
    event = rng.choice(
        ("the museum opens", "the school closes", "the concert begins", "the holiday starts", "the exam ends")
    )
    return f"on the {rng.choice(ORDINALS)} of {rng.choice(MONTHS)} {event} {clock(rng)}"


def telephone(rng: random.Random) -> str:
    whose = rng.choice((f"{rng.choice(NAMES)}'s", "the doctor's", "the hotel's", "my uncle's"))
    return f"{whose} {rng.choice(('number', 'code', 'room number'))} is {' '.join(rng.choices(DIGITS, k=rng.randint(3, 5)))}"


def request(rng: random.Random) -> str:
    thing = f"the {adjective(rng)} {rng.choice(THINGS)[0]}"
    return f"{rng.choice(('please put', 'could you put', 'do not leave', 'she left'))} {thing} {place(rng)} before {rng.choice(DAYS)}"


def together(rng: random.Random) -> str:
    first, second = rng.sample(NAMES, 2)
    verb = rng.choice(("walked", "swam", "waited", "talked", "sang", "danced", "worked", "slept"))
    return (
        f"{first} and {second} {verb} {rng.choice(ROOMS)} until {rng.choice(DAYS)} {rng.choice(('morning', 'evening'))}"
    )


def description(rng: random.Random) -> str:
    animal = rng.choice(ANIMALS)[0]
    verb = rng.choice(("sleeps", "hides", "waits", "eats", "runs", "plays"))
    return f"{rng.choice(NAMES)}'s {adjective(rng)} {animal} {verb} {rng.choice(ROOMS)} {rng.choice(HABITS)}"


def meal(rng: random.Random) -> str:
    first, second = rng.sample(FOODS, 2)
    verb = rng.choice(("eats", "cooks", "buys", "likes", "shares"))
    return f"{subject(rng)} {verb} {first} with {second} and drinks {rng.choice(DRINKS)} {rng.choice(HABITS)}"


PATTERNS: tuple[Callable[[random.Random], str], ...] = (
    past_event, past_event, past_event, perfect, habit, future, future, belief, question, train, counting, age, weather,
    condition, price, shopping, comparison, date, telephone, request, together, description, meal,
)  # fmt: skip


def sentence(rng: random.Random) -> str:
    """One sentence, lower case, no punctuation but apostrophes."""
    return rng.choice(PATTERNS)(rng)
