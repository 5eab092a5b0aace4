"""British spellings and their American ones, written as word families: stem x ending.

Whisper's own list comes with its tokenizer's files. This one needs no download; it agrees with Whisper's on the words that
both have, and holds the common part of it. `load_spelling` reads Whisper's `normalizer.json` where exact equality counts.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from trainers.errors import UserError

_OUR_STEMS = """
arb ard arm behavi cand clam clang col demean discol disfav dishon endeav ferv fav flav harb hon hum lab misbehavi
misdemean neighb od parl ranc rig rum savi sav splend succ technicol tum val vap vig watercol
"""
_OUR_ENDINGS = "s ed ing er ers able ably ful fully less ite ites itism al ist ists y ies hood hoods ly"

_IZE_STEMS = """
accessor acclimat agon amort anglic antagon apolog author bapt brutal cannibal canon capital caramel categor central
character civil colon commercial computer conceptual context contextual criminal critic crystall custom decentral
dehuman democrat demon demoral destabil digit disorgan dramat econom emphas empath energ epitom equal evangel external
factor familiar fantas femin fertil final formal fossil galvan general global glamor harmon homogen hospital human
hypnot hypothes ideal idol immobil immortal immun individual industrial initial institutional internal international
ion italic item jeopard legal legitim liberal local magnet marginal material maxim mechan memor mesmer militar minim
mobil modern moistur monopol moral national natural neutral normal optim organ ostrac overemphas oxid particular
pasteur patron penal personal philosoph polar politic popular pressur priorit privat professional public pulver
radical random rational real recogn regular reorgan revital revolution romantic sanit satir scandal scrutin
sensational serial social special stabil standard steril stigmat subsid summar symbol sympath synchron synthes
systemat tantal terror theor trivial union urban util vandal verbal victim visual vocal western
"""
_IZE_ENDINGS = "e es ed ing er ers able ation ations"

_LL_STEMS = """
backpeda bejewe beve cance carro channe chise counse dia dishe due ename fue funne grave grove initia jewe labe leve
libe marsha marve mode outtrave parce peda penci quarre refue remode reve riva shove shrive signa snorke spira squirre
stenci swive tase tota towe trave tunne unrave wease yode
"""
_LL_ENDINGS = {"lled": "led", "lling": "ling", "ller": "ler", "llers": "lers", "llings": "lings"}

_RE_STEMS = """
amphitheat calib cent centilit centimet epicent fib goit kilomet lacklust lit lust meag met micromet millilit millimet
mit sab saltpet scept sepulch somb spect theat
"""

_AE_WORDS = """
anaemia anaemic anaesthesia anaesthetic anaesthetics anaesthetist anaesthetists archaeologist archaeologists caesarean
caesareans diarrhoea encyclopaedia encyclopaedias encyclopaedic faecal faeces foetal foetus foetuses gynaecological
gynaecologist gynaecologists gynaecology haemoglobin haemophilia haemorrhage haemorrhages haemorrhoids homoeopathic
homoeopathy leukaemia mediaeval oesophagus oestrogen orthopaedic orthopaedics paediatric paediatrician paediatricians
paediatrics paedophile paedophiles paedophilia palaeolithic palaeontologist palaeontologists palaeontology
"""

_SINGLE = """
aeroplane:airplane ageing:aging aluminium:aluminum analogue:analog artefact:artifact axe:ax calliper:caliper
chilli:chili cheque:check chequebook:checkbook chequered:checkered cosy:cozy councillor:councilor counsellor:counselor
defence:defense defenceless:defenseless dialogue:dialog disc:disk distil:distill draught:draft draughty:drafty
draughtsman:draftsman draughtsmen:draftsmen enrol:enroll enthral:enthrall epilogue:epilog fibreglass:fiberglass
fillet:filet fulfil:fulfill fulfilment:fulfillment gaol:jail gaoler:jailer grey:gray greyish:grayish
instalment:installment instil:instill jewellery:jewelry judgement:judgment kilogramme:kilogram licence:license
likeable:likable manoeuvrable:maneuverable manoeuvre:maneuver manoeuvred:maneuvered manoeuvring:maneuvering
marvellous:marvelous marvellously:marvelously monologue:monolog mould:mold moulded:molded moulding:molding
mouldy:moldy moult:molt moustache:mustache offence:offense omelette:omelet panellist:panelist plough:plow
ploughed:plowed ploughing:plowing ploughman:plowman practise:practice practised:practiced practising:practicing
pretence:pretense programme:program prologue:prolog pyjama:pajama sceptic:skeptic sceptical:skeptical
scepticism:skepticism smoulder:smolder smouldering:smoldering storey:story sulphate:sulfate sulphide:sulfide
sulphur:sulfur catalogue:catalog catalogued:cataloged cataloguing:cataloging centred:centered centrepiece:centerpiece
syphon:siphon theatregoer:theatergoer tonne:ton tranquillity:tranquility tyre:tire waggon:wagon woollen:woolen
woolly:wooly worshipped:worshiped worshipping:worshiping worshipper:worshiper yoghurt:yogurt
"""
_PLURALS = {"cosy": None, "draughty": None, "mouldy": None, "storey": ("storeys", "stories")}


def british_to_american() -> dict[str, str]:
    """The list: a British spelling to its American one, lower case. Some entries are not words; they do no harm."""
    return {british: american for british, american in _pairs() if british != american}


def load_spelling(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a spelling list such as Whisper's `normalizer.json`: one JSON object, word to word."""
    try:
        mapping = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f"The spelling list {path} cannot be read ({error}). Give a JSON object of words, such as the normalizer.json "
            "in a Whisper repository."
        ) from error
    if not isinstance(mapping, dict) or not all(isinstance(value, str) for value in mapping.values()):
        raise UserError(f"The spelling list {path} must be one JSON object from words to words.")
    return mapping


def _pairs() -> Iterator[tuple[str, str]]:
    for stem in _OUR_STEMS.split():
        for ending in ["", *_OUR_ENDINGS.split()]:
            yield f"{stem}our{ending}", f"{stem}or{ending}"
    for stem in _IZE_STEMS.split():
        for ending in _IZE_ENDINGS.split():
            yield f"{stem}is{ending}", f"{stem}iz{ending}"
    for stem in ("anal", "breathal", "catal", "paral", "psychoanal"):
        for ending in ("e", "es", "ed", "ing"):
            yield f"{stem}ys{ending}", f"{stem}yz{ending}"
    for stem in _LL_STEMS.split():
        for british, american in _LL_ENDINGS.items():
            yield stem + british, stem + american
    for stem in _RE_STEMS.split():
        yield f"{stem}re", f"{stem}er"
        yield f"{stem}res", f"{stem}ers"
    for word in _AE_WORDS.split():
        yield word, word.replace("ae", "e").replace("oe", "e")
    for pair in _SINGLE.split():
        british, american = pair.split(":")
        yield british, american
        plural = _PLURALS.get(british, (british + "s", american + "s"))
        if plural:
            yield plural
