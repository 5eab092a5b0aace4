"""The Dutch grammar of the embedded default: de and het, the verb second in main clauses and last in subordinate ones."""

# Word lists read better as one string than as a list of quoted words.
# ruff: noqa: SIM905

import random

from num2words import num2words

from trainers.embedded.grammar import pattern

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

COUNTED = ANIMALS + THINGS


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


def definite_phrase(rng: random.Random) -> str:
    """A definite noun with an adjective: "het oude boek"."""
    noun, article, _ = rng.choice(THINGS)
    return f"{article} {adjective(rng)[1]} {noun}"


def genitive(name: str) -> str:
    """Names in a long vowel take an apostrophe and s, names in s an apostrophe: "anna's", "kees'"."""
    if name.endswith("s"):
        return f"{name}'"
    return f"{name}'s" if name[-1] in "aiou" else f"{name}s"


def owner(rng: random.Random) -> str:
    return genitive(rng.choice(NAMES))


def person(rng: random.Random) -> str:
    noun, article, _ = rng.choice(PEOPLE)
    return f"{article} {noun}"


def action(rng: random.Random) -> tuple[tuple[str, str, str, str], str]:
    """A verb and an object that suits it."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(THING_VERBS), noun_phrase(rng, THINGS)
    if kind < 0.8:
        return rng.choice(READING_VERBS), noun_phrase(rng, READINGS)
    noun, article, _ = rng.choice(PEOPLE)
    verb, quality = rng.choice(PERSON_VERBS), rng.choice(("oude", "jonge", "nieuwe", "vermoeide", "vriendelijke"))
    return verb, f"{article} {quality} {noun}"


def hour(rng: random.Random) -> str:
    return "een" if (value := rng.randint(1, 12)) == 1 else number(value)


def request(rng: random.Random) -> str:
    form = rng.choice(
        (
            "zet alsjeblieft {object} {first} neer",
            "wil je {object} {second} zetten",
            "vergeet {object} niet",
            "ze liet {object} {third} achter",
        )
    )
    made = pattern(form, object="{definite_phrase} voor {DAYS}", first="{place}", second="{place}", third="{place}")
    return made.say(globals(), rng)


subject = pattern("{NAMES}", "{person}", "{POSSESSIVES} {RELATIVES}", odds=(0.5, 0.75))
place = pattern("{ROOMS}", "in {CITIES}", odds=(0.6,))
clock = pattern(
    "om {{at} uur|half {at}|kwart over {at}|kwart voor {at}|{past} over {at}|{past} voor {at}|{past} voor half {at}"
    "|{past} over half {at}}",
    at="{hour}",
    past="{vijf|tien}",
)
past_event = pattern("{PAST_TIMES} {verb.2} {subject} {thing} {place}", "{subject} {verb.2} {thing} {place}")
future = pattern(
    "{FUTURE_TIMES} {modal} {subject} {thing} {verb.0}",
    "{subject} {modal} op {DAYS} {clock} {thing} {verb.0}",
    modal="{zal|moet|kan|wil|gaat}",
)
PATTERNS = (
    *[past_event] * 3,
    pattern(
        "{PAST_TIMES} heeft {subject} {thing} {verb.3}",
        "{subject} heeft {thing} {al|net|nooit|eindelijk|niet} {verb.3}",
    ),
    pattern(
        "{in de zomer|af en toe|elke dag|soms} {verb.1} {subject} {thing} {place}",
        "{subject} {verb.1} {vaak|altijd|zelden|nooit} {thing} {place}",
    ),
    *[future] * 2,
    pattern(
        "{ik denk dat|iedereen weet dat|we hopen dat|het is jammer dat|ze zeggen dat} {subject} {thing} "
        "{{verb.2}|{verb.1}|zal {verb.0}|moet {verb.0}|{verb.3} heeft}"
    ),
    pattern("{waarom|wanneer|hoe|} {{verb.1}|{verb.2}} {subject} {thing} {place}"),
    pattern(
        "{de trein|de bus|het vliegtuig|de boot} van {first} naar {second} "
        "{vertrekt|is te laat en vertrekt|vertrok gisteren} {clock}",
        two="CITIES",
    ),
    pattern(
        "er {zijn|waren|staan|stonden} {things} {ROOMS}",
        "{ROOMS} {zijn|waren|staan|stonden} {things}",
        things="{2-99} {COUNTED.2}",
    ),
    pattern("{subject} is {2-99} jaar oud en {does} {CITIES}", does="{woont in|werkt in|is geboren in|komt uit}"),
    pattern(
        "{DAYS} wordt het {first} en {second} {where} bij {2-35} graden",
        two="WEATHER",
        where="{in {CITIES}|in het noorden|in het zuiden|aan de kust|in de bergen}",
    ),
    pattern(
        "als {het {day} regent|de zon {day} schijnt|het {day} sneeuwt|we {day} tijd hebben|de winkel {day} dicht is} "
        "{zal|moet|wil} {subject} {thing} {verb.0}",
        day="{DAYS}",
    ),
    pattern("{definite_phrase} {kost|kostte|kost maar} {cost} {place}", cost="{2-99} {euro|cent|dollar}"),
    pattern(
        "{we kopen|breng alsjeblieft|ik wil graag|ze bestelden} {food} en {drink}",
        food="{2-20} {kilo|zakken|dozen|gram} {FOODS}",
        drink="{een fles|een glas|wat|een kopje} {DRINKS}",
    ),
    pattern("{definite_phrase} is {COMPARATIVES} dan {POSSESSIVES} {other}", other="{THINGS.0}"),
    pattern(
        "op de {ORDINALS} {MONTHS} {event} {clock}",
        event="{opent het museum|sluit de school|begint het concert|begint de vakantie|eindigt het feest}",
    ),
    pattern("{het nummer van {NAMES}|de code van de dokter|het nummer van het hotel|de code van {NAMES}} is {digits}"),
    request,
    pattern(
        "{first} en {second} {wandelden|zwommen|wachtten|praatten|zongen|dansten|werkten|sliepen} {ROOMS} "
        "tot {DAYS}{ochtend|avond}",
        two="NAMES",
    ),
    pattern(
        "{owner} {adjective.1} {animal} {does} {ROOMS} {HABITS}",
        animal="{ANIMALS.0}",
        does="{slaapt|verstopt zich|wacht|eet|rent|speelt}",
    ),
    pattern(
        "{subject} {does} {first} met {second} en drinkt {HABITS} {DRINKS}",
        two="FOODS",
        does="{eet|kookt|koopt|deelt}",
    ),
)
