"""The Dutch grammar of the embedded default: de and het, the verb second in main clauses and last in subordinate ones."""

# Word lists read better as one string than as a list of quoted words.
# ruff: noqa: SIM905

import random
from collections.abc import Callable

from num2words import num2words

NAMES = (
    "anna pieter sanne daan femke bram lotte sem eva thijs fleur joris noor ruben roos maarten iris willem marijke kees "
    "hendrik tess jeroen saskia floris mieke gijs annelies koen lieke"
).split()
CITIES = (
    "amsterdam utrecht rotterdam groningen leiden delft eindhoven maastricht nijmegen haarlem zwolle breda antwerpen gent "
    "brussel brugge parijs londen berlijn rome"
).split()
MONTHS = "januari februari maart april mei juni juli augustus september oktober november december".split()
DAYS = "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag".split()
# bare form (indefinite het-words), inflected form
COLOURS = [
    ("rood", "rode"), ("blauw", "blauwe"), ("groen", "groene"), ("geel", "gele"), ("zwart", "zwarte"), ("wit", "witte"),
    ("grijs", "grijze"), ("bruin", "bruine"),
]  # fmt: skip
QUALITIES = [
    ("groot", "grote"), ("klein", "kleine"), ("oud", "oude"), ("nieuw", "nieuwe"), ("zwaar", "zware"), ("licht", "lichte"),
    ("duur", "dure"), ("goedkoop", "goedkope"), ("mooi", "mooie"), ("lelijk", "lelijke"), ("vreemd", "vreemde"),
    ("rond", "ronde"), ("smal", "smalle"), ("kapot", "kapotte"), ("schoon", "schone"), ("vies", "vieze"),
    ("eenvoudig", "eenvoudige"), ("handig", "handige"), ("houten", "houten"), ("zilveren", "zilveren"),
]  # fmt: skip
READING_QUALITIES = [
    ("lang", "lange"), ("kort", "korte"), ("saai", "saaie"), ("grappig", "grappige"), ("oud", "oude"), ("nieuw", "nieuwe"),
    ("belangrijk", "belangrijke"), ("geheim", "geheime"), ("mooi", "mooie"), ("treurig", "treurige"),
]  # fmt: skip
# singular, article, plural
THINGS = [
    ("fiets", "de", "fietsen"), ("lamp", "de", "lampen"), ("tafel", "de", "tafels"), ("stoel", "de", "stoelen"),
    ("jas", "de", "jassen"), ("paraplu", "de", "paraplu's"), ("klok", "de", "klokken"), ("gitaar", "de", "gitaren"),
    ("camera", "de", "camera's"), ("spiegel", "de", "spiegels"), ("tas", "de", "tassen"), ("mes", "het", "messen"),
    ("sleutel", "de", "sleutels"), ("kopje", "het", "kopjes"), ("tent", "de", "tenten"), ("kast", "de", "kasten"),
    ("tapijt", "het", "tapijten"), ("boot", "de", "boten"), ("hoed", "de", "hoeden"), ("ring", "de", "ringen"),
    ("kussen", "het", "kussens"), ("doos", "de", "dozen"), ("emmer", "de", "emmers"), ("ladder", "de", "ladders"),
    ("vaas", "de", "vazen"), ("schilderij", "het", "schilderijen"), ("bord", "het", "borden"), ("koffer", "de", "koffers"),
    ("viool", "de", "violen"), ("horloge", "het", "horloges"),
]  # fmt: skip
READINGS = [
    ("boek", "het", "boeken"), ("brief", "de", "brieven"), ("krant", "de", "kranten"), ("gedicht", "het", "gedichten"),
    ("verslag", "het", "verslagen"), ("verhaal", "het", "verhalen"), ("recept", "het", "recepten"),
    ("dagboek", "het", "dagboeken"), ("artikel", "het", "artikelen"),
]  # fmt: skip
PEOPLE = [
    ("leraar", "de", "leraren"), ("dokter", "de", "dokters"), ("bakker", "de", "bakkers"), ("boer", "de", "boeren"),
    ("buurman", "de", "buurmannen"), ("kok", "de", "koks"), ("rechter", "de", "rechters"), ("visser", "de", "vissers"),
    ("schilder", "de", "schilders"), ("matroos", "de", "matrozen"), ("student", "de", "studenten"),
    ("toerist", "de", "toeristen"), ("tuinman", "de", "tuinmannen"), ("zanger", "de", "zangers"),
    ("ingenieur", "de", "ingenieurs"), ("chauffeur", "de", "chauffeurs"), ("verpleger", "de", "verplegers"),
    ("kind", "het", "kinderen"),
]  # fmt: skip
ANIMALS = [
    ("hond", "de", "honden"), ("kat", "de", "katten"), ("paard", "het", "paarden"), ("koe", "de", "koeien"),
    ("schaap", "het", "schapen"), ("varken", "het", "varkens"), ("konijn", "het", "konijnen"), ("eend", "de", "eenden"),
    ("geit", "de", "geiten"), ("kip", "de", "kippen"), ("muis", "de", "muizen"), ("zwaan", "de", "zwanen"),
]  # fmt: skip
FOODS = "brood kaas soep rijst vis honing boter pasta salade chocola jam zout suiker meel bonen aardappelen".split()
DRINKS = "water melk koffie thee sap wijn bier limonade".split()
# infinitive, present, past, participle
THING_VERBS = [
    ("kopen", "koopt", "kocht", "gekocht"), ("verkopen", "verkoopt", "verkocht", "verkocht"),
    ("vinden", "vindt", "vond", "gevonden"), ("halen", "haalt", "haalde", "gehaald"),
    ("repareren", "repareert", "repareerde", "gerepareerd"), ("schilderen", "schildert", "schilderde", "geschilderd"),
    ("verliezen", "verliest", "verloor", "verloren"), ("lenen", "leent", "leende", "geleend"),
    ("wassen", "wast", "waste", "gewassen"), ("tekenen", "tekent", "tekende", "getekend"),
    ("dragen", "draagt", "droeg", "gedragen"), ("verbergen", "verbergt", "verborg", "verborgen"),
    ("kiezen", "kiest", "koos", "gekozen"), ("stelen", "steelt", "stal", "gestolen"),
]  # fmt: skip
READING_VERBS = [
    ("lezen", "leest", "las", "gelezen"), ("schrijven", "schrijft", "schreef", "geschreven"),
    ("drukken", "drukt", "drukte", "gedrukt"), ("vertalen", "vertaalt", "vertaalde", "vertaald"),
    ("bewaren", "bewaart", "bewaarde", "bewaard"),
]  # fmt: skip
PERSON_VERBS = [
    ("bezoeken", "bezoekt", "bezocht", "bezocht"), ("helpen", "helpt", "hielp", "geholpen"),
    ("ontmoeten", "ontmoet", "ontmoette", "ontmoet"), ("bedanken", "bedankt", "bedankte", "bedankt"),
    ("volgen", "volgt", "volgde", "gevolgd"), ("missen", "mist", "miste", "gemist"), ("bellen", "belt", "belde", "gebeld"),
]  # fmt: skip
ROOMS = (
    "in de keuken|in de tuin|op het station|op de brug|achter de kerk|bij de rivier|op de zolder|op de markt|"
    "onder de trap|naast de school|in het bos|op het strand|voor de bibliotheek|in de kelder|tegenover het museum|"
    "aan het meer|in de wachtkamer|op het vliegveld"
).split("|")
PAST_TIMES = (
    "gisteren|gisteravond|vorige week|vanmorgen|twee dagen geleden|afgelopen zomer|vorige winter|een uur geleden|"
    "op mijn verjaardag"
).split("|")
FUTURE_TIMES = "morgen|volgende week|vanavond|volgende maand|vanmiddag|volgend jaar|na de vakantie".split("|")
HABITS = "elke ochtend|elke avond|een keer per week|af en toe|in de winter|twee keer per maand|de hele dag".split("|")
RELATIVES = "moeder vader broer zus oom tante nicht neef oma opa dochter zoon".split()
POSSESSIVES = "mijn jouw zijn haar hun".split()
WEATHER = "koud warm winderig bewolkt zonnig nat mistig droog glad guur".split()
COMPARATIVES = "groter kleiner ouder nieuwer zwaarder lichter goedkoper lelijker schoner sterker langer korter".split()
DIGITS = "nul een twee drie vier vijf zes zeven acht negen".split()
ORDINALS = (
    "eerste tweede derde vierde vijfde zesde zevende achtste negende tiende elfde twaalfde dertiende veertiende vijftiende"
).split()


def number(value: int) -> str:
    """`value` (2 to 99) in words."""
    return str(num2words(value, lang="nl"))


def adjective(rng: random.Random) -> tuple[str, str]:
    return rng.choice(QUALITIES if rng.random() < 0.6 else COLOURS)


def noun_phrase(rng: random.Random, nouns: list[tuple[str, str, str]]) -> str:
    """An object: indefinite, definite, possessive or counted."""
    noun, article, plural = rng.choice(nouns)
    bare, inflected = rng.choice(READING_QUALITIES) if nouns is READINGS else adjective(rng)
    described = rng.random() < 0.7
    weak = f"{inflected} {noun}" if described else noun
    kind = rng.random()
    if kind < 0.35:
        return f"een {bare} {noun}" if described and article == "het" else f"een {weak}"
    if kind < 0.6:
        return f"{article} {weak}"
    if kind < 0.75:
        return f"{rng.choice(POSSESSIVES)} {weak}"
    if kind < 0.85:
        return f"{genitive(rng.choice(NAMES))} {weak}"
    return f"{number(rng.randint(2, 99))} {plural}"


def definite_phrase(rng: random.Random, nouns: list[tuple[str, str, str]]) -> str:
    """A definite noun with an adjective: "het oude boek"."""
    noun, article, _ = rng.choice(nouns)
    return f"{article} {adjective(rng)[1]} {noun}"


def genitive(name: str) -> str:
    """Names in a long vowel take an apostrophe and s, names in s an apostrophe: "anna's", "kees'"."""
    if name.endswith("s"):
        return f"{name}'"
    return f"{name}'s" if name[-1] in "aiou" else f"{name}s"


def subject(rng: random.Random) -> str:
    """A third person singular subject."""
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(NAMES)
    if kind < 0.75:
        noun, article, _ = rng.choice(PEOPLE)
        return f"{article} {noun}"
    return f"{rng.choice(POSSESSIVES)} {rng.choice(RELATIVES)}"


def action(rng: random.Random) -> tuple[tuple[str, str, str, str], str]:
    """A verb and an object that suits it."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(THING_VERBS), noun_phrase(rng, THINGS)
    if kind < 0.8:
        return rng.choice(READING_VERBS), noun_phrase(rng, READINGS)
    noun, article, _ = rng.choice(PEOPLE)
    return rng.choice(
        PERSON_VERBS
    ), f"{article} {rng.choice(('oude', 'jonge', 'nieuwe', 'vermoeide', 'vriendelijke'))} {noun}"


def clock(rng: random.Random) -> str:
    value = rng.randint(1, 12)
    hour = "een" if value == 1 else number(value)
    minutes = rng.choice(("vijf", "tien"))
    return "om " + rng.choice(
        (
            f"{hour} uur", f"half {hour}", f"kwart over {hour}", f"kwart voor {hour}", f"{minutes} over {hour}",
            f"{minutes} voor {hour}", f"{minutes} voor half {hour}", f"{minutes} over half {hour}",
        )
    )  # fmt: skip


def place(rng: random.Random) -> str:
    return rng.choice(ROOMS) if rng.random() < 0.6 else f"in {rng.choice(CITIES)}"


def past_event(rng: random.Random) -> str:
    verb, thing = action(rng)
    if rng.random() < 0.5:
        return f"{rng.choice(PAST_TIMES)} {verb[2]} {subject(rng)} {thing} {place(rng)}"
    return f"{subject(rng)} {verb[2]} {thing} {place(rng)}"


def perfect(rng: random.Random) -> str:
    verb, thing = action(rng)
    if rng.random() < 0.5:
        return f"{rng.choice(PAST_TIMES)} heeft {subject(rng)} {thing} {verb[3]}"
    return f"{subject(rng)} heeft {thing} {rng.choice(('al', 'net', 'nooit', 'eindelijk', 'niet'))} {verb[3]}"


def habit(rng: random.Random) -> str:
    verb, thing = action(rng)
    if rng.random() < 0.5:
        return f"{rng.choice(('in de zomer', 'af en toe', 'elke dag', 'soms'))} {verb[1]} {subject(rng)} {thing} {place(rng)}"
    return f"{subject(rng)} {verb[1]} {rng.choice(('vaak', 'altijd', 'zelden', 'nooit'))} {thing} {place(rng)}"


def future(rng: random.Random) -> str:
    verb, thing = action(rng)
    modal = rng.choice(("zal", "moet", "kan", "wil", "gaat"))
    if rng.random() < 0.5:
        return f"{rng.choice(FUTURE_TIMES)} {modal} {subject(rng)} {thing} {verb[0]}"
    return f"{subject(rng)} {modal} op {rng.choice(DAYS)} {clock(rng)} {thing} {verb[0]}"


def belief(rng: random.Random) -> str:
    verb, thing = action(rng)
    opening = rng.choice(("ik denk dat", "iedereen weet dat", "we hopen dat", "het is jammer dat", "ze zeggen dat"))
    return f"{opening} {subject(rng)} {thing} {rng.choice((verb[2], verb[1], 'zal ' + verb[0], 'moet ' + verb[0], verb[3] + ' heeft'))}"


def question(rng: random.Random) -> str:
    verb, thing = action(rng)
    opening = rng.choice(("waarom", "wanneer", "hoe", ""))
    return f"{opening} {rng.choice((verb[1], verb[2]))} {subject(rng)} {thing} {place(rng)}".strip()


def train(rng: random.Random) -> str:
    start, end = rng.sample(CITIES, 2)
    vehicle = rng.choice(("de trein", "de bus", "het vliegtuig", "de boot"))
    return f"{vehicle} van {start} naar {end} {rng.choice(('vertrekt', 'is te laat en vertrekt', 'vertrok gisteren'))} {clock(rng)}"


def counting(rng: random.Random) -> str:
    things = f"{number(rng.randint(2, 99))} {rng.choice(ANIMALS + THINGS)[2]}"
    if rng.random() < 0.5:
        return f"er {rng.choice(('zijn', 'waren', 'staan', 'stonden'))} {things} {rng.choice(ROOMS)}"
    return f"{rng.choice(ROOMS)} {rng.choice(('zijn', 'waren', 'staan', 'stonden'))} {things}"


def age(rng: random.Random) -> str:
    verb = rng.choice(("woont in", "werkt in", "is geboren in", "komt uit"))
    return f"{subject(rng)} is {number(rng.randint(2, 99))} jaar oud en {verb} {rng.choice(CITIES)}"


def weather(rng: random.Random) -> str:
    first, second = rng.sample(WEATHER, 2)
    where = rng.choice((f"in {rng.choice(CITIES)}", "in het noorden", "in het zuiden", "aan de kust", "in de bergen"))
    return f"{rng.choice(DAYS)} wordt het {first} en {second} {where} bij {number(rng.randint(2, 35))} graden"


def condition(rng: random.Random) -> str:
    verb, thing = action(rng)
    day = rng.choice(DAYS)
    start = rng.choice(
        (
            f"het {day} regent",
            f"de zon {day} schijnt",
            f"het {day} sneeuwt",
            f"we {day} tijd hebben",
            f"de winkel {day} dicht is",
        )
    )
    return f"als {start} {rng.choice(('zal', 'moet', 'wil'))} {subject(rng)} {thing} {verb[0]}"


def price(rng: random.Random) -> str:
    cost = f"{number(rng.randint(2, 99))} {rng.choice(('euro', 'cent', 'dollar'))}"
    return f"{definite_phrase(rng, THINGS)} {rng.choice(('kost', 'kostte', 'kost maar'))} {cost} {place(rng)}"


def shopping(rng: random.Random) -> str:
    food = f"{number(rng.randint(2, 20))} {rng.choice(('kilo', 'zakken', 'dozen', 'gram'))} {rng.choice(FOODS)}"
    drink = f"{rng.choice(('een fles', 'een glas', 'wat', 'een kopje'))} {rng.choice(DRINKS)}"
    return f"{rng.choice(('we kopen', 'breng alsjeblieft', 'ik wil graag', 'ze bestelden'))} {food} en {drink}"


def comparison(rng: random.Random) -> str:
    second = rng.choice(THINGS)[0]
    return f"{definite_phrase(rng, THINGS)} is {rng.choice(COMPARATIVES)} dan {rng.choice(POSSESSIVES)} {second}"


def date(rng: random.Random) -> str:
    event = rng.choice(
        ("opent het museum", "sluit de school", "begint het concert", "begint de vakantie", "eindigt het feest")
    )
    return f"op de {rng.choice(ORDINALS)} {rng.choice(MONTHS)} {event} {clock(rng)}"


def telephone(rng: random.Random) -> str:
    whose = rng.choice(
        (
            f"het nummer van {rng.choice(NAMES)}",
            "de code van de dokter",
            "het nummer van het hotel",
            f"de code van {rng.choice(NAMES)}",
        )
    )
    return f"{whose} is {' '.join(rng.choices(DIGITS, k=rng.randint(3, 5)))}"


def request(rng: random.Random) -> str:
    opening = rng.choice(("zet alsjeblieft", "wil je", "vergeet", "ze liet"))
    phrase = f"{definite_phrase(rng, THINGS)} voor {rng.choice(DAYS)}"
    ending = {
        "zet alsjeblieft": f"{place(rng)} neer",
        "wil je": f"{place(rng)} zetten",
        "vergeet": "niet",
        "ze liet": f"{place(rng)} achter",
    }
    return f"{opening} {phrase} {ending[opening]}"


def together(rng: random.Random) -> str:
    first, second = rng.sample(NAMES, 2)
    verb = rng.choice(("wandelden", "zwommen", "wachtten", "praatten", "zongen", "dansten", "werkten", "sliepen"))
    return f"{first} en {second} {verb} {rng.choice(ROOMS)} tot {rng.choice(DAYS)}{rng.choice(('ochtend', 'avond'))}"


def description(rng: random.Random) -> str:
    animal = rng.choice(ANIMALS)[0]
    verb = rng.choice(("slaapt", "verstopt zich", "wacht", "eet", "rent", "speelt"))
    return f"{genitive(rng.choice(NAMES))} {adjective(rng)[1]} {animal} {verb} {rng.choice(ROOMS)} {rng.choice(HABITS)}"


def meal(rng: random.Random) -> str:
    first, second = rng.sample(FOODS, 2)
    verb = rng.choice(("eet", "kookt", "koopt", "deelt"))
    return f"{subject(rng)} {verb} {first} met {second} en drinkt {rng.choice(HABITS)} {rng.choice(DRINKS)}"


PATTERNS: tuple[Callable[[random.Random], str], ...] = (
    past_event, past_event, past_event, perfect, habit, future, future, belief, question, train, counting, age, weather,
    condition, price, shopping, comparison, date, telephone, request, together, description, meal,
)  # fmt: skip


def sentence(rng: random.Random) -> str:
    """One sentence, lower case, no punctuation but apostrophes."""
    return rng.choice(PATTERNS)(rng)
