"""The Danish grammar of the embedded default: gender, definite forms, and the verb in second place."""

# Word lists read better as one string than as a list of quoted words.
# ruff: noqa: SIM905

import random

from num2words import num2words

from trainers.embedded.grammar import fill, pattern

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

COUNTED = ANIMALS + THINGS


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


def definite_phrase(rng: random.Random) -> str:
    """A definite noun with an adjective: "den røde cykel"."""
    noun, article, _, _ = rng.choice(THINGS)
    return f"{'det' if article == 'et' else 'den'} {adjective(rng)[2]} {noun}"


def genitive(name: str) -> str:
    """Names that end in s take an apostrophe: "jens' cykel"."""
    return f"{name}'" if name.endswith("s") else f"{name}s"


def owner(rng: random.Random) -> str:
    return genitive(rng.choice(NAMES))


def action(rng: random.Random) -> tuple[tuple[str, str, str, str], str]:
    """A verb and an object that suits it."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(THING_VERBS), noun_phrase(rng, THINGS)
    if kind < 0.8:
        return rng.choice(READING_VERBS), noun_phrase(rng, READINGS)
    noun, article, _, _ = rng.choice(PEOPLE)
    verb, quality = rng.choice(PERSON_VERBS), rng.choice(("gamle", "unge", "nye", "trætte", "venlige"))
    return verb, f"{'det' if article == 'et' else 'den'} {quality} {noun}"


def hour(rng: random.Random) -> str:
    return "et" if (value := rng.randint(1, 12)) == 1 else number(value)


def comparison(rng: random.Random) -> str:
    noun, article, _, _ = rng.choice(THINGS)
    whose = "{POSSESSIVES.1}" if article == "et" else "{POSSESSIVES.0}"
    return fill(f"{{definite_phrase}} er {{COMPARATIVES}} end {whose} {noun}", globals(), rng)


subject = pattern("{NAMES}", "{PEOPLE.2}", "{POSSESSIVES.0} {RELATIVES}", odds=(0.5, 0.75))
place = pattern("{ROOMS}", "i {CITIES}", odds=(0.6,))
clock = pattern(
    "klokken {{at}|halv {at}|kvart over {at}|kvart i {at}|{past} minutter over {at}|{past} minutter i {at}}",
    at="{hour}",
    past="{fem|ti|tyve}",
)
past_event = pattern("{PAST_TIMES} {verb.2} {subject} {thing} {place}", "{subject} {verb.2} {thing} {place}")
future = pattern(
    "{FUTURE_TIMES} {modal} {subject} {verb.0} {thing}",
    "{subject} {modal} {verb.0} {thing} på {DAYS} {clock}",
    modal="{vil|skal|kan|må}",
)
PATTERNS = (
    *[past_event] * 3,
    pattern("{subject} har {allerede|lige|aldrig|endelig|ikke} {verb.3} {thing}"),
    pattern(
        "{om sommeren|om natten|hver dag|nogle gange} {verb.1} {subject} {thing} {place}",
        "{subject} {verb.1} {ofte|altid|sjældent|aldrig} {thing} {place}",
    ),
    *[future] * 2,
    pattern(
        "{jeg tror at|alle ved at|vi håber at|det er synd at|de siger at} {subject} {ikke|snart|aldrig|måske} {verb.1} {thing}"
    ),
    pattern("{hvorfor|hvornår|hvordan|} {verb.2} {subject} {thing} {place}"),
    pattern(
        "{toget|bussen|flyet|færgen} fra {first} til {second} {kører|ankommer|er forsinket og kommer} {clock}",
        two="CITIES",
    ),
    pattern("der {er|var} {things} {ROOMS}", "{ROOMS} {står|stod|er|var} der {things}", things="{2-99} {COUNTED.3}"),
    pattern("{subject} er {2-99} år gammel og {does} {CITIES}", does="{bor i|arbejder i|er født i|kommer fra}"),
    pattern(
        "{DAYS} bliver det {first} og {second} {where} med {2-35} grader",
        two="WEATHER",
        where="{i {CITIES}|mod nord|mod syd|ved kysten|i bjergene}",
    ),
    pattern(
        "hvis {det regner|solen skinner|det sner|vi har tid|butikken er lukket} på {DAYS} {vil|skal} {subject} {verb.0} {thing}"
    ),
    pattern("{definite_phrase} {koster|kostede|koster kun} {cost} {place}", cost="{2-99} {kroner|euro|dollars}"),
    pattern(
        "{vi mangler|tag venligst|jeg vil gerne have|de bestilte} {food} og {drink}",
        food="{2-20} {kilo|poser|kasser|gram} {FOODS}",
        drink="{en flaske|et glas|noget|en kop} {DRINKS}",
    ),
    comparison,
    pattern(
        "den {ORDINALS} {MONTHS} {event} {clock}",
        event="{åbner museet|lukker skolen|begynder koncerten|starter ferien|slutter festen}",
    ),
    pattern("{{owner}|lægens|hotellets|min onkels} {nummer|kode|telefonnummer} er {digits}"),
    pattern("{stil venligst|vil du stille|glem ikke|hun efterlod} {definite_phrase} {place} inden {DAYS}"),
    pattern(
        "{first} og {second} {gik|svømmede|ventede|talte|sang|dansede|arbejdede|sov} {ROOMS} indtil {DAYS} {morgen|aften}",
        two="NAMES",
    ),
    pattern(
        "{owner} {adjective.2} {animal} {does} {ROOMS} {HABITS}",
        animal="{ANIMALS.0}",
        does="{sover|gemmer sig|venter|spiser|løber|leger}",
    ),
    pattern(
        "{subject} {does} {first} med {second} og drikker {DRINKS} {HABITS}",
        two="FOODS",
        does="{spiser|laver|køber|deler}",
    ),
)
