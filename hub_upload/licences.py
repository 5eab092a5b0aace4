"""The licence of a published model, from the licences of its encoder, its LLM and its training data.

A model is under the strictest of its parts' licences where they can be ordered; otherwise it is `other`, with the parts named.
"""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

# Licences that contain each other's conditions, from the freest. A later one may be put on a work that holds earlier ones.
LADDER: tuple[tuple[str, ...], ...] = (
    ("cc0-1.0", "unlicense", "pddl", "wtfpl", "0bsd"),
    ("mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "zlib"),
    ("apache-2.0",),
    ("cc-by-3.0", "cc-by-4.0", "odc-by"),
    ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"),
)
UNKNOWN = "unknown"

# Licences of bases and data sets that are used often, as their pages on the Hub state them. The first match counts. A pattern
# covers sizes of one release, whose licence was read; no family whose later releases may have another.
KNOWN: tuple[tuple[str, str], ...] = (
    ("openai/whisper-large-v3-turbo", "mit"),
    ("openai/whisper-tiny*", "apache-2.0"),
    ("openai/whisper-base*", "apache-2.0"),
    ("openai/whisper-small*", "apache-2.0"),
    ("openai/whisper-medium*", "apache-2.0"),
    ("openai/whisper-large*", "apache-2.0"),
    ("distil-whisper/distil-*", "mit"),
    ("Qwen/Qwen2.5-3B*", "qwen-research"),
    ("Qwen/Qwen2.5-72B*", "qwen"),
    *((f"Qwen/Qwen2.5-{size}B*", "apache-2.0") for size in ("0.5", "1.5", "7", "14", "32")),
    ("Qwen/Qwen2-72B*", "tongyi-qianwen"),
    *((f"Qwen/Qwen2-{size}B*", "apache-2.0") for size in ("0.5", "1.5", "7")),
    *((f"Qwen/Qwen3-{size}B*", "apache-2.0") for size in ("0.6", "1.7", "4", "8", "14", "32")),
    ("HuggingFaceTB/SmolLM-*", "apache-2.0"),
    ("HuggingFaceTB/SmolLM2-*", "apache-2.0"),
    ("mistralai/Mistral-7B-*", "apache-2.0"),
    ("meta-llama/Llama-3.2-*", "llama3.2"),
    ("meta-llama/Llama-3.1-*", "llama3.1"),
    ("meta-llama/Meta-Llama-3-*", "llama3"),
    ("meta-llama/Llama-2-*", "llama2"),
    *((f"google/gemma-{release}-*", "gemma") for release in ("2b", "7b", "2", "3")),
    ("google/gemma-2b", "gemma"),
    ("google/gemma-7b", "gemma"),
    ("EleutherAI/pythia-*", "apache-2.0"),
    ("fsicoli/common_voice_*", "cc0-1.0"),
    ("mozilla-foundation/common_voice_*", "cc0-1.0"),
    ("openslr/librispeech_asr", "cc-by-4.0"),
    ("facebook/multilingual_librispeech", "cc-by-4.0"),
    ("facebook/voxpopuli", "cc0-1.0"),
    ("google/fleurs", "cc-by-4.0"),
    ("alexandrainst/coral*", "openrail"),
    ("alexandrainst/ftspeech", "other"),
)
# What licences ask those to show who pass a model on that was made with their part.
NOTICES = {
    "gemma": "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
    "llama2": "Llama 2 is licensed under the LLAMA 2 Community License, Copyright © Meta Platforms, Inc. All Rights Reserved.",
    "llama3": "Built with Meta Llama 3. Meta Llama 3 is licensed under the Meta Llama 3 Community License, Copyright © Meta "
    "Platforms, Inc. All Rights Reserved. Names of models made with it begin with “Llama 3”.",
    **{
        f"llama{release}": f"Built with Llama. Llama {release} is licensed under the Llama {release} Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved. Names of models made with it begin with “Llama”."
        for release in ("3.1", "3.2")
    },
}
# What the project itself ships and synthesises, by the names that it gives.
OWN = ("embedded", "embedded/encoder", "embedded/lm", "embedded-encoder", "embedded-lm", "non_speech")
OWN_LICENCE = "apache-2.0"


@dataclass(frozen=True)
class Part:
    """One thing that a model is made from: `role` is encoder, language model or data; `licence` the Hub's identifier."""

    role: str
    name: str
    licence: str


@dataclass(frozen=True)
class Licence:
    """The derived licence: the Hub's identifier, the name to show with `other`, and the parts it comes from."""

    identifier: str
    name: str | None
    parts: tuple[Part, ...]
    reason: str


def readable_identifier(value: object) -> str | None:
    """A licence as a card on the Hub states it, if that is an identifier; a card may hold anything."""
    return value if isinstance(value, str) and re.fullmatch(r"[a-z0-9][a-z0-9.+-]{1,40}", value) else None


def known_licence(name: str) -> str:
    """The licence of a base model or data set by its name; `unknown` when this table does not know it."""
    if name in OWN:
        return OWN_LICENCE
    matches = (licence for pattern, licence in KNOWN if fnmatch.fnmatchcase(name, pattern))
    return next(matches, UNKNOWN)


def notices(parts: Sequence[Part]) -> list[str]:
    """What the parts' licences ask to be shown with the model."""
    return [text for licence, text in NOTICES.items() if any(part.licence == licence for part in parts)]


def derive_licence(parts: Sequence[Part]) -> Licence:
    """
    The licence of a model made from `parts`.

    One licence for all: that one. All on the ladder of licences that contain each other: the strictest. Else `other`.
    """
    parts = tuple(parts)
    found = sorted({part.licence for part in parts})
    unknown = [part.name for part in parts if part.licence == UNKNOWN]
    if not parts or unknown:
        names = ", ".join(unknown) or "its parts"
        return Licence("other", "unknown", parts, f"the licence of {names} is not known")
    if len(found) == 1 and found[0] not in ("other",):
        return Licence(found[0], None, parts, "all parts have the same licence")
    if all(_rung(licence) is not None for licence in found):
        strictest = max(found, key=lambda licence: (_rung(licence) or 0, licence))
        return Licence(strictest, None, parts, "it is the strictest of the parts' licences")
    strict = [licence for licence in found if _rung(licence) is None]
    free = [licence for licence in found if _rung(licence) is not None and "-nc-" not in licence]
    if len(strict) == 1 and strict[0] != "other" and len(free) == len(found) - 1:
        return Licence(
            strict[0], None, parts, f"{strict[0]} is stricter than the permissive licences of the other parts"
        )
    return Licence(
        "other", "-and-".join(found), parts, "the parts' licences cannot be ordered, so each holds for its part"
    )


def _rung(licence: str) -> int | None:
    return next((index for index, rung in enumerate(LADDER) if licence in rung), None)
