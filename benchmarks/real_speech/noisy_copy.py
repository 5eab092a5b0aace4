"""Text for the small language model of the real-speech benchmark: corpus, tokenizer and the noisy-copy task."""

import csv
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from trainers.errors import UserError
from trainers.evaluation.normalizers import get_normalizer

PROMPT = "Transcribe speech to text.\n"
LANGUAGE_WEIGHTS = {"nl": 0.45, "en": 0.4, "da": 0.15}
MAX_CHARACTERS = 120
HELD_OUT = 200
normalize = get_normalizer("paper")


def held_back_transcripts(roots: Iterable[Path]) -> set[str]:
    """The normalised transcripts of every split other than `train` in the AudioFolders below `roots`."""
    transcripts: set[str] = set()
    for root in roots:
        tables = sorted(root.rglob("metadata.csv"))
        if not tables:
            raise UserError(f"{root} holds no metadata.csv at any depth. Give the folder of the AudioFolder data sets.")
        for table in tables:
            with table.open(encoding="utf-8", newline="") as file:
                transcripts.update(
                    normalize(row["transcription"]) for row in csv.DictReader(file) if row["split"] != "train"
                )
    return transcripts - {""}


def read_lines(path: Path, excluded: set[str]) -> tuple[list[str], int]:
    """Distinct normalised lines of `path` that are not in `excluded`, and how many lines `excluded` removed."""
    lines: dict[str, None] = {}
    removed = 0
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = normalize(raw)
        if line in excluded:
            removed += 1
        elif 2 <= len(line) <= MAX_CHARACTERS:
            lines[line] = None
    if not lines:
        raise UserError(f"{path} holds no usable line. It must be plain text, one sentence a line.")
    return list(lines), removed


def held_out_and_rest(lines: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """The `HELD_OUT` lines of a language that the model never reads, and the others, in an order that `seed` decides."""
    order = list(lines)
    random.Random(seed).shuffle(order)
    return order[:HELD_OUT], order[HELD_OUT:]


def train_tokenizer(lines: Sequence[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on `lines` and on the prompt; `<s>`, `</s>` and `<pad>` are three different tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*lines, *[PROMPT] * 1000], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=1024
    )


@dataclass(frozen=True)
class Example:
    """Token ids of one training sequence; the loss starts at position `start`."""

    tokens: list[int]
    start: int
    copy: bool


class ExampleMaker:
    """Turns sentences into plain sequences (`<s> sentence </s>`) and copy sequences.

    A copy sequence is the sentence's characters, spoilt, then the prompt, then the sentence and `</s>`: the order in
    which SLAM-ASR shows a language model the audio. Of the characters 8 % are dropped, 8 % replaced and 8 % doubled.
    Speech at ten vectors a second carries 1 to 2 characters a vector, with pauses; so `pace` varies the prefix too:
    neighbouring characters joined to one piece of the vocabulary, or pieces repeated, and longer spaces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, letters: str, *, vary_pace: bool = True) -> None:
        self.letters = letters
        self.vary_pace = vary_pace
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.prompt = tokenizer.encode(PROMPT, add_special_tokens=False)
        self.tokenizer = tokenizer
        self.characters: dict[str, list[int]] = {}
        decoded = ((token, str(tokenizer.decode([token]))) for token in range(len(tokenizer)))
        self.pieces = {text: token for token, text in decoded if 2 <= len(text) <= 3 and text.strip(" ").isalpha()}

    def plain(self, sentence: str) -> Example:
        ids = self.tokenizer.encode(sentence, add_special_tokens=False)
        return Example([self.bos, *ids, self.eos], 1, False)

    def copy(self, sentence: str, rng: random.Random, *, noise: float = 0.08, whole: float = 0.15) -> Example:
        """A copy sequence; see [`prefix`]."""
        head = self.prefix(sentence, rng, noise=noise, whole=whole) + self.prompt
        ids = self.tokenizer.encode(sentence, add_special_tokens=False)
        return Example([*head, *ids, self.eos], len(head), True)

    def prefix(self, sentence: str, rng: random.Random, *, noise: float = 0.08, whole: float = 0.15) -> list[int]:
        """The spoilt sentence's ids. `noise`: the rate of each kind of spoilt characters. `whole`: how often, where the
        pace varies, they are the tokenizer's own pieces and not characters."""
        characters = list(self._spoil(sentence, rng, noise))
        if self.vary_pace and rng.random() < whole:
            return self.tokenizer.encode("".join(characters), add_special_tokens=False)
        pace = rng.random() if self.vary_pace else 0.7
        join = rng.uniform(0.4, 1.0) if pace < 0.6 else 0.0
        repeat = rng.uniform(0.1, 0.4) if pace > 0.85 else 0.0
        pause = 0.2 if self.vary_pace and rng.random() < 0.4 else 0.0
        ids: list[int] = []
        position = 0
        while position < len(characters):
            size = 1
            if rng.random() < join:
                size = 3 if rng.random() < 0.15 else 2
            text = "".join(characters[position : position + size])
            if len(text) > 1 and text not in self.pieces:
                text = characters[position]
            piece = [self.pieces[text]] if len(text) > 1 else self._character(text)
            times = 1 + (rng.random() < repeat)
            if text == " " and rng.random() < pause:
                times += rng.randint(1, 3)
            ids += piece * times
            position += len(text)
        if pause:
            space = self._character(" ")
            ids = space * rng.randint(0, 3) + ids + space * rng.randint(0, 3)
        return ids

    def _character(self, character: str) -> list[int]:
        if character not in self.characters:
            self.characters[character] = self.tokenizer.encode(character, add_special_tokens=False)
        return self.characters[character]

    def _spoil(self, sentence: str, rng: random.Random, noise: float) -> Iterator[str]:
        for character in sentence:
            kind = rng.random()
            if kind < noise:
                continue
            yield rng.choice(self.letters) if kind < 2 * noise else character
            if 2 * noise <= kind < 3 * noise:
                yield character


class ExamplePool:
    """An endless, repeatable stream of batches of about `batch_tokens` tokens, of examples of like length."""

    POOL = 2048

    def __init__(
        self, corpus: dict[str, list[str]], maker: ExampleMaker, *, copy_share: float, batch_tokens: int, seed: int
    ) -> None:
        self.corpus, self.maker, self.copy_share = corpus, maker, copy_share
        self.batch_tokens, self.seed = batch_tokens, seed

    def batches(self, pool: int) -> list[list[Example]]:
        """The batches of pool number `pool`: the same for the same number and seed."""
        rng = random.Random(f"{self.seed}/{pool}")
        hardness = min(1.0, max(0.0, (pool - 8) / 8))  # copying is found sooner while nothing is spoilt
        weights = [LANGUAGE_WEIGHTS.get(language, 0.1) for language in self.corpus]
        examples = []
        for language in rng.choices(list(self.corpus), weights, k=self.POOL):
            sentence = rng.choice(self.corpus[language])
            second = rng.choice(self.corpus[language])
            if rng.random() < 0.05 and len(sentence) + len(second) < MAX_CHARACTERS:
                sentence = f"{sentence} {second}"
            copied = rng.random() < self.copy_share
            examples.append(
                self.maker.copy(sentence, rng, noise=0.08 * hardness, whole=0.5 - 0.35 * hardness)
                if copied
                else self.maker.plain(sentence)
            )
        examples.sort(key=lambda example: len(example.tokens))
        batches: list[list[Example]] = [[]]
        for example in examples:
            if (len(batches[-1]) + 1) * len(example.tokens) > self.batch_tokens and batches[-1]:
                batches.append([])
            batches[-1].append(example)
        rng.shuffle(batches)
        return batches
