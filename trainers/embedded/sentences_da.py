"""The Danish grammar of the embedded default: gender, definite forms, and the verb in second place."""

# Word lists read better as one string than as a list of quoted words.
# ruff: noqa: SIM905

import random
from collections.abc import Callable

from num2words import num2words

NAMES = (
    "anna peter mette lars sofie jens karen niels freja emil ida mads signe rasmus laura søren clara jakob astrid "
    "morten line frederik maja anders julie oscar birgit kasper helle viggo"
).split()
CITIES = (
    "aarhus odense aalborg københavn esbjerg randers kolding horsens vejle roskilde svendborg viborg hamborg oslo "
    "stockholm london paris rom berlin bergen"
).split()
MONTHS = "januar februar marts april maj juni juli august september oktober november december".split()
DAYS = "mandag tirsdag onsdag torsdag fredag lørdag søndag".split()
# common gender, neuter, definite and plural
COLOURS = [
    ("rød", "rødt", "røde"), ("blå", "blåt", "blå"), ("grøn", "grønt", "grønne"), ("gul", "gult", "gule"),
    ("sort", "sort", "sorte"), ("hvid", "hvidt", "hvide"), ("grå", "gråt", "grå"), ("brun", "brunt", "brune"),
]  # fmt: skip
QUALITIES = [
    ("stor", "stort", "store"), ("lille", "lille", "lille"), ("gammel", "gammelt", "gamle"), ("ny", "nyt", "nye"),
    ("tung", "tungt", "tunge"), ("let", "let", "lette"), ("dyr", "dyrt", "dyre"), ("billig", "billigt", "billige"),
    ("smuk", "smukt", "smukke"), ("grim", "grimt", "grimme"), ("mærkelig", "mærkeligt", "mærkelige"),
    ("rund", "rundt", "runde"), ("smal", "smalt", "smalle"), ("ren", "rent", "rene"),
    ("beskidt", "beskidt", "beskidte"), ("enkel", "enkelt", "enkle"), ("flot", "flot", "flotte"),
    ("moderne", "moderne", "moderne"), ("ødelagt", "ødelagt", "ødelagte"), ("tysk", "tysk", "tyske"),
]  # fmt: skip
READING_QUALITIES = [
    ("lang", "langt", "lange"), ("kort", "kort", "korte"), ("kedelig", "kedeligt", "kedelige"), ("sjov", "sjovt", "sjove"),
    ("gammel", "gammelt", "gamle"), ("ny", "nyt", "nye"), ("vigtig", "vigtigt", "vigtige"),
    ("hemmelig", "hemmeligt", "hemmelige"), ("smuk", "smukt", "smukke"), ("sørgelig", "sørgeligt", "sørgelige"),
]  # fmt: skip
# indefinite, article, definite, plural
THINGS = [
    ("cykel", "en", "cyklen", "cykler"), ("lampe", "en", "lampen", "lamper"), ("bord", "et", "bordet", "borde"),
    ("stol", "en", "stolen", "stole"), ("frakke", "en", "frakken", "frakker"), ("paraply", "en", "paraplyen", "paraplyer"),
    ("ur", "et", "uret", "ure"), ("guitar", "en", "guitaren", "guitarer"), ("kamera", "et", "kameraet", "kameraer"),
    ("spejl", "et", "spejlet", "spejle"), ("taske", "en", "tasken", "tasker"), ("kniv", "en", "kniven", "knive"),
    ("nøgle", "en", "nøglen", "nøgler"), ("kop", "en", "koppen", "kopper"), ("telt", "et", "teltet", "telte"),
    ("skab", "et", "skabet", "skabe"), ("tæppe", "et", "tæppet", "tæpper"), ("båd", "en", "båden", "både"),
    ("hat", "en", "hatten", "hatte"), ("ring", "en", "ringen", "ringe"), ("pude", "en", "puden", "puder"),
    ("kasse", "en", "kassen", "kasser"), ("spand", "en", "spanden", "spande"), ("stige", "en", "stigen", "stiger"),
    ("vase", "en", "vasen", "vaser"), ("maleri", "et", "maleriet", "malerier"), ("skovl", "en", "skovlen", "skovle"),
    ("kuffert", "en", "kufferten", "kufferter"), ("violin", "en", "violinen", "violiner"), ("bil", "en", "bilen", "biler"),
]  # fmt: skip
READINGS = [
    ("bog", "en", "bogen", "bøger"), ("brev", "et", "brevet", "breve"), ("avis", "en", "avisen", "aviser"),
    ("digt", "et", "digtet", "digte"), ("rapport", "en", "rapporten", "rapporter"),
    ("historie", "en", "historien", "historier"), ("opskrift", "en", "opskriften", "opskrifter"),
    ("dagbog", "en", "dagbogen", "dagbøger"), ("artikel", "en", "artiklen", "artikler"),
]  # fmt: skip
PEOPLE = [
    ("lærer", "en", "læreren", "lærere"), ("læge", "en", "lægen", "læger"), ("bager", "en", "bageren", "bagere"),
    ("bonde", "en", "bonden", "bønder"), ("nabo", "en", "naboen", "naboer"), ("kok", "en", "kokken", "kokke"),
    ("dommer", "en", "dommeren", "dommere"), ("fisker", "en", "fiskeren", "fiskere"), ("maler", "en", "maleren", "malere"),
    ("sømand", "en", "sømanden", "sømænd"), ("student", "en", "studenten", "studenter"),
    ("turist", "en", "turisten", "turister"), ("gartner", "en", "gartneren", "gartnere"),
    ("sanger", "en", "sangeren", "sangere"), ("ingeniør", "en", "ingeniøren", "ingeniører"),
    ("chauffør", "en", "chaufføren", "chauffører"), ("murer", "en", "mureren", "murere"), ("barn", "et", "barnet", "børn"),
]  # fmt: skip
ANIMALS = [
    ("hund", "en", "hunden", "hunde"), ("kat", "en", "katten", "katte"), ("hest", "en", "hesten", "heste"),
    ("ko", "en", "koen", "køer"), ("får", "et", "fåret", "får"), ("gris", "en", "grisen", "grise"),
    ("kanin", "en", "kaninen", "kaniner"), ("and", "en", "anden", "ænder"), ("ged", "en", "geden", "geder"),
    ("høne", "en", "hønen", "høner"), ("mus", "en", "musen", "mus"), ("svane", "en", "svanen", "svaner"),
]  # fmt: skip
FOODS = "brød ost suppe ris fisk honning smør pasta salat chokolade marmelade salt sukker mel bønner kartofler".split()
DRINKS = "vand mælk kaffe te saft vin øl cider".split()
# infinitive, present, past, participle
THING_VERBS = [
    ("købe", "køber", "købte", "købt"), ("sælge", "sælger", "solgte", "solgt"), ("finde", "finder", "fandt", "fundet"),
    ("hente", "henter", "hentede", "hentet"), ("reparere", "reparerer", "reparerede", "repareret"),
    ("male", "maler", "malede", "malet"), ("miste", "mister", "mistede", "mistet"), ("låne", "låner", "lånte", "lånt"),
    ("vaske", "vasker", "vaskede", "vasket"), ("tegne", "tegner", "tegnede", "tegnet"), ("bære", "bærer", "bar", "båret"),
    ("gemme", "gemmer", "gemte", "gemt"), ("vælge", "vælger", "valgte", "valgt"), ("stjæle", "stjæler", "stjal", "stjålet"),
]  # fmt: skip
READING_VERBS = [
    ("læse", "læser", "læste", "læst"), ("skrive", "skriver", "skrev", "skrevet"),
    ("trykke", "trykker", "trykte", "trykt"), ("oversætte", "oversætter", "oversatte", "oversat"),
    ("beholde", "beholder", "beholdt", "beholdt"),
]  # fmt: skip
PERSON_VERBS = [
    ("besøge", "besøger", "besøgte", "besøgt"), ("hjælpe", "hjælper", "hjalp", "hjulpet"),
    ("møde", "møder", "mødte", "mødt"), ("takke", "takker", "takkede", "takket"), ("følge", "følger", "fulgte", "fulgt"),
    ("invitere", "inviterer", "inviterede", "inviteret"), ("savne", "savner", "savnede", "savnet"),
]  # fmt: skip
ROOMS = (
    "i køkkenet|i haven|på stationen|på broen|bag kirken|ved åen|på loftet|på torvet|under trappen|ved siden af skolen|"
    "i skoven|på stranden|foran biblioteket|i kælderen|over for museet|ved søen|i venteværelset|i lufthavnen"
).split("|")
PAST_TIMES = (
    "i går|i aftes|i sidste uge|i morges|for to dage siden|sidste sommer|sidste vinter|for en time siden|på min fødselsdag"
).split("|")
FUTURE_TIMES = "i morgen|i næste uge|i aften|i næste måned|i eftermiddag|til næste år|efter ferien".split("|")
HABITS = "hver morgen|hver aften|en gang om ugen|nu og da|om vinteren|to gange om måneden|hele dagen".split("|")
RELATIVES = "mor far bror søster onkel tante kusine fætter bedstemor bedstefar datter søn".split()
POSSESSIVES = [  # common gender, neuter
    ("min", "mit"), ("din", "dit"), ("hans", "hans"), ("hendes", "hendes"), ("vores", "vores"), ("deres", "deres"),
]  # fmt: skip
WEATHER = "koldt varmt blæsende skyet solrigt vådt tåget tørt glat mildt".split()
COMPARATIVES = "større mindre ældre nyere tungere lettere billigere grimmere renere stærkere længere kortere".split()
DIGITS = "nul en to tre fire fem seks syv otte ni".split()
ORDINALS = (
    "første anden tredje fjerde femte sjette syvende ottende niende tiende ellevte tolvte trettende fjortende femtende"
).split()


def number(value: int) -> str:
    """`value` (2 to 99) in words."""
    return str(num2words(value, lang="da"))


def adjective(rng: random.Random) -> tuple[str, str, str]:
    return rng.choice(QUALITIES if rng.random() < 0.6 else COLOURS)


def noun_phrase(rng: random.Random, nouns: list[tuple[str, str, str, str]]) -> str:
    """An object: indefinite, definite (with or without adjective), possessive or counted."""
    noun, article, definite, plural = rng.choice(nouns)
    common, neuter, weak = rng.choice(READING_QUALITIES) if nouns is READINGS else adjective(rng)
    described = rng.random() < 0.7
    kind = rng.random()
    if kind < 0.35:
        return f"{article} {neuter if article == 'et' else common} {noun}" if described else f"{article} {noun}"
    if kind < 0.6:
        return f"{'det' if article == 'et' else 'den'} {weak} {noun}" if described else definite
    if kind < 0.75:
        owner = rng.choice(POSSESSIVES)[article == "et"]
        return f"{owner} {weak} {noun}" if described else f"{owner} {noun}"
    if kind < 0.85:
        owner = genitive(rng.choice(NAMES))
        return f"{owner} {weak} {noun}" if described else f"{owner} {noun}"
    return f"{number(rng.randint(2, 99))} {plural}"


def definite_phrase(rng: random.Random, nouns: list[tuple[str, str, str, str]]) -> str:
    """A definite noun with an adjective: "den røde cykel"."""
    noun, article, _, _ = rng.choice(nouns)
    return f"{'det' if article == 'et' else 'den'} {adjective(rng)[2]} {noun}"


def genitive(name: str) -> str:
    """Names that end in s take an apostrophe: "jens' cykel"."""
    return f"{name}'" if name.endswith("s") else f"{name}s"


def subject(rng: random.Random) -> str:
    """A third person singular subject."""
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(NAMES)
    if kind < 0.75:
        return rng.choice(PEOPLE)[2]
    return f"{rng.choice(POSSESSIVES)[0]} {rng.choice(RELATIVES)}"


def action(rng: random.Random) -> tuple[tuple[str, str, str, str], str]:
    """A verb and an object that suits it."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(THING_VERBS), noun_phrase(rng, THINGS)
    if kind < 0.8:
        return rng.choice(READING_VERBS), noun_phrase(rng, READINGS)
    noun, article, _, _ = rng.choice(PEOPLE)
    return rng.choice(
        PERSON_VERBS
    ), f"{'det' if article == 'et' else 'den'} {rng.choice(('gamle', 'unge', 'nye', 'trætte', 'venlige'))} {noun}"


def clock(rng: random.Random) -> str:
    hour = "et" if (value := rng.randint(1, 12)) == 1 else number(value)
    minutes = rng.choice(("fem", "ti", "tyve"))
    return "klokken " + rng.choice(
        (
            hour,
            f"halv {hour}",
            f"kvart over {hour}",
            f"kvart i {hour}",
            f"{minutes} minutter over {hour}",
            f"{minutes} minutter i {hour}",
        )
    )


def place(rng: random.Random) -> str:
    return rng.choice(ROOMS) if rng.random() < 0.6 else f"i {rng.choice(CITIES)}"


def past_event(rng: random.Random) -> str:
    verb, thing = action(rng)
    if rng.random() < 0.5:
        return f"{rng.choice(PAST_TIMES)} {verb[2]} {subject(rng)} {thing} {place(rng)}"
    return f"{subject(rng)} {verb[2]} {thing} {place(rng)}"


def perfect(rng: random.Random) -> str:
    verb, thing = action(rng)
    return f"{subject(rng)} har {rng.choice(('allerede', 'lige', 'aldrig', 'endelig', 'ikke'))} {verb[3]} {thing}"


def habit(rng: random.Random) -> str:
    verb, thing = action(rng)
    if rng.random() < 0.5:
        return f"{rng.choice(('om sommeren', 'om natten', 'hver dag', 'nogle gange'))} {verb[1]} {subject(rng)} {thing} {place(rng)}"
    return f"{subject(rng)} {verb[1]} {rng.choice(('ofte', 'altid', 'sjældent', 'aldrig'))} {thing} {place(rng)}"


def future(rng: random.Random) -> str:
    verb, thing = action(rng)
    modal = rng.choice(("vil", "skal", "kan", "må"))
    if rng.random() < 0.5:
        return f"{rng.choice(FUTURE_TIMES)} {modal} {subject(rng)} {verb[0]} {thing}"
    return f"{subject(rng)} {modal} {verb[0]} {thing} på {rng.choice(DAYS)} {clock(rng)}"


def belief(rng: random.Random) -> str:
    verb, thing = action(rng)
    opening = rng.choice(("jeg tror at", "alle ved at", "vi håber at", "det er synd at", "de siger at"))
    return f"{opening} {subject(rng)} {rng.choice(('ikke', 'snart', 'aldrig', 'måske'))} {verb[1]} {thing}"


def question(rng: random.Random) -> str:
    verb, thing = action(rng)
    opening = rng.choice(("hvorfor", "hvornår", "hvordan", ""))
    return f"{opening} {verb[2]} {subject(rng)} {thing} {place(rng)}".strip()


def train(rng: random.Random) -> str:
    start, end = rng.sample(CITIES, 2)
    vehicle = rng.choice(("toget", "bussen", "flyet", "færgen"))
    return f"{vehicle} fra {start} til {end} {rng.choice(('kører', 'ankommer', 'er forsinket og kommer'))} {clock(rng)}"


def counting(rng: random.Random) -> str:
    things = f"{number(rng.randint(2, 99))} {rng.choice(ANIMALS + THINGS)[3]}"
    if rng.random() < 0.5:
        return f"der {rng.choice(('er', 'var'))} {things} {rng.choice(ROOMS)}"
    return f"{rng.choice(ROOMS)} {rng.choice(('står', 'stod', 'er', 'var'))} der {things}"


def age(rng: random.Random) -> str:
    verb = rng.choice(("bor i", "arbejder i", "er født i", "kommer fra"))
    return f"{subject(rng)} er {number(rng.randint(2, 99))} år gammel og {verb} {rng.choice(CITIES)}"


def weather(rng: random.Random) -> str:
    first, second = rng.sample(WEATHER, 2)
    where = rng.choice((f"i {rng.choice(CITIES)}", "mod nord", "mod syd", "ved kysten", "i bjergene"))
    return f"{rng.choice(DAYS)} bliver det {first} og {second} {where} med {number(rng.randint(2, 35))} grader"


def condition(rng: random.Random) -> str:
    verb, thing = action(rng)
    start = rng.choice(("det regner", "solen skinner", "det sner", "vi har tid", "butikken er lukket"))
    return f"hvis {start} på {rng.choice(DAYS)} {rng.choice(('vil', 'skal'))} {subject(rng)} {verb[0]} {thing}"


def price(rng: random.Random) -> str:
    cost = f"{number(rng.randint(2, 99))} {rng.choice(('kroner', 'euro', 'dollars'))}"
    return f"{definite_phrase(rng, THINGS)} {rng.choice(('koster', 'kostede', 'koster kun'))} {cost} {place(rng)}"


def shopping(rng: random.Random) -> str:
    food = f"{number(rng.randint(2, 20))} {rng.choice(('kilo', 'poser', 'kasser', 'gram'))} {rng.choice(FOODS)}"
    drink = f"{rng.choice(('en flaske', 'et glas', 'noget', 'en kop'))} {rng.choice(DRINKS)}"
    return f"{rng.choice(('vi mangler', 'tag venligst', 'jeg vil gerne have', 'de bestilte'))} {food} og {drink}"


def comparison(rng: random.Random) -> str:
    second = rng.choice(THINGS)
    return f"{definite_phrase(rng, THINGS)} er {rng.choice(COMPARATIVES)} end {rng.choice(POSSESSIVES)[second[1] == 'et']} {second[0]}"


def date(rng: random.Random) -> str:
    verb, noun = rng.choice(
        (
            ("åbner", "museet"),
            ("lukker", "skolen"),
            ("begynder", "koncerten"),
            ("starter", "ferien"),
            ("slutter", "festen"),
        )
    )
    return f"den {rng.choice(ORDINALS)} {rng.choice(MONTHS)} {verb} {noun} {clock(rng)}"


def telephone(rng: random.Random) -> str:
    whose = rng.choice((genitive(rng.choice(NAMES)), "lægens", "hotellets", "min onkels"))
    return f"{whose} {rng.choice(('nummer', 'kode', 'telefonnummer'))} er {' '.join(rng.choices(DIGITS, k=rng.randint(3, 5)))}"


def request(rng: random.Random) -> str:
    opening = rng.choice(("stil venligst", "vil du stille", "glem ikke", "hun efterlod"))
    return f"{opening} {definite_phrase(rng, THINGS)} {place(rng)} inden {rng.choice(DAYS)}"


def together(rng: random.Random) -> str:
    first, second = rng.sample(NAMES, 2)
    verb = rng.choice(("gik", "svømmede", "ventede", "talte", "sang", "dansede", "arbejdede", "sov"))
    return f"{first} og {second} {verb} {rng.choice(ROOMS)} indtil {rng.choice(DAYS)} {rng.choice(('morgen', 'aften'))}"


def description(rng: random.Random) -> str:
    animal = rng.choice(ANIMALS)[0]
    verb = rng.choice(("sover", "gemmer sig", "venter", "spiser", "løber", "leger"))
    return f"{genitive(rng.choice(NAMES))} {adjective(rng)[2]} {animal} {verb} {rng.choice(ROOMS)} {rng.choice(HABITS)}"


def meal(rng: random.Random) -> str:
    first, second = rng.sample(FOODS, 2)
    verb = rng.choice(("spiser", "laver", "køber", "deler"))
    return f"{subject(rng)} {verb} {first} med {second} og drikker {rng.choice(DRINKS)} {rng.choice(HABITS)}"


PATTERNS: tuple[Callable[[random.Random], str], ...] = (
    past_event, past_event, past_event, perfect, habit, future, future, belief, question, train, counting, age, weather,
    condition, price, shopping, comparison, date, telephone, request, together, description, meal,
)  # fmt: skip


def sentence(rng: random.Random) -> str:
    """One sentence, lower case, no punctuation but apostrophes."""
    return rng.choice(PATTERNS)(rng)
