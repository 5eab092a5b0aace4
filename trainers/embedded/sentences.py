"""Sentences for the embedded default: seeded generators in Danish, Dutch and English, and splits that cannot overlap.

A sentence belongs to the split that a hash of its text names, whoever generates it and with whatever seed. So no
sentence of the quickstart's training, validation or test set can be among the sentences the base models were trained on.
"""

import hashlib
import random

from trainers.embedded import sentences_da, sentences_en, sentences_nl
from trainers.embedded.grammar import Words, sentence
from trainers.errors import UserError

LANGUAGES = ("da", "nl", "en")
# Shares of the hash space, in thousandths.
SPLIT_SHARES = {"pretrain": 800, "train": 100, "validation": 30, "test": 70}

_LANGUAGES: dict[str, Words] = {"da": vars(sentences_da), "nl": vars(sentences_nl), "en": vars(sentences_en)}
_MAX_TRIES_PER_SENTENCE = 1000


def split_of(text: str) -> str:
    """The one split ("pretrain", "train", "validation" or "test") that may hold the sentence `text`."""
    bucket = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") % 1000
    for split, share in SPLIT_SHARES.items():
        if bucket < share:
            return split
        bucket -= share
    raise AssertionError("the shares of the splits do not add up to 1000")


def generate_sentences(language: str, split: str, count: int, seed: int = 0) -> list[str]:
    """`count` different sentences of one of `LANGUAGES` and a split: lower case, no punctuation but apostrophes.

    The same arguments give the same list on every machine, and a shorter list is the start of a longer one.
    Raises UserError when `count` exceeds what the grammar can say.
    """
    rng = random.Random(f"sentences/{language}/{split}/{seed}")
    words = _LANGUAGES[language]
    found: dict[str, None] = {}
    tries = 0
    while len(found) < count:
        tries += 1
        if tries > _MAX_TRIES_PER_SENTENCE * count:
            raise UserError(
                f"the {language} grammar gave only {len(found)} of {count} {split} sentences: ask for fewer."
            )
        text = sentence(words, rng)
        if text not in found and split_of(text) == split:
            found[text] = None
    return list(found)
