"""Long recordings, transcribed by the pipeline in windows: what cutting and joining cost.

    python -m benchmarks.long_form MODEL [--dataset embedded] [--split test] [--language en] [--windows 10 25] [--output FILE.json]

The utterances of a test set are put one after another with pauses of 0.3 to 0.7 s of faint noise, a recording for each
language. What cutting and joining cost is the difference of the two word error rates. With `--whole` the rows of the data set
are long recordings themselves. `lost` counts utterances of which no word came back, `doubled` places where three words or more
came back a second time, and `at_seams` the word errors beside a seam of two windows.
"""

import sys
import warnings
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

import jiwer
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.result import figures_parser, publish
from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.evaluation.normalizers import get_normalizer
from trainers.inference.torch_engine import load_pipeline
from trainers.recipe import from_dict
from trainers.sound import RATE

PAUSES = (0.3, 0.7)  # seconds
NOISE = 1e-3  # root mean square, of full scale


def concatenate(waves: list[np.ndarray], seed: int) -> np.ndarray:
    """`(samples,)`: the recordings with a pause after each."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    for wave in waves:
        pause = rng.normal(0, NOISE, int(RATE * rng.uniform(*PAUSES)))
        parts += [wave, pause.astype(np.float32)]
    return np.concatenate(parts)


def figures(references: list[str], texts: list[str], language: str) -> dict[str, Any]:
    """Word errors of `texts`, one for each reference or one for all together, with utterances lost and words doubled."""
    normalize = get_normalizer(language)
    spoken = [normalize(reference).split() for reference in references]
    heard = [normalize(text).split() for text in texts]
    pairs = list(zip(spoken, heard, strict=True)) if len(heard) > 1 else [(list(chain(*spoken)), heard[0])]
    alignment = jiwer.process_words([" ".join(said) for said, _ in pairs], [" ".join(read) for _, read in pairs])
    hit = []  # for each spoken word whether it came back
    doubled = 0
    for (reference, words), chunks in zip(pairs, alignment.alignments, strict=True):
        own = [False] * len(reference)
        for chunk in chunks:
            if chunk.type == "equal":
                own[chunk.ref_start_idx : chunk.ref_end_idx] = [True] * (chunk.ref_end_idx - chunk.ref_start_idx)
            elif chunk.type == "insert":
                doubled += is_repeated(words, chunk.hyp_start_idx, chunk.hyp_end_idx)
        hit += own
    ends = np.cumsum([len(words) for words in spoken])
    lost = sum(not any(hit[end - len(words) : end]) for words, end in zip(spoken, ends, strict=True))
    errors = alignment.substitutions + alignment.deletions + alignment.insertions
    return {"wer": alignment.wer, "errors": errors, "words": len(hit), "lost": lost, "doubled": doubled}


class SeamErrors(TypedDict):
    """Words lost, invented or wrong beside the seams of two windows."""

    seams: int
    words: int  # the last of a window and the first of the next
    substituted: int
    inserted: int
    deleted: int  # between the two


def seam_errors(pairs: list[tuple[str, list[str]]], language: str) -> SeamErrors:
    """The word errors at the seams of recordings, each with its reference and the transcript of each window."""
    normalize = get_normalizer(language)
    found = SeamErrors(seams=0, words=0, substituted=0, inserted=0, deleted=0)
    for reference, texts in pairs:
        windows = [words for words in (normalize(text).split() for text in texts) if words]
        if len(windows) < 2:
            continue
        seams = {int(place) for place in np.cumsum([len(words) for words in windows[:-1]])}
        beside = seams | {place - 1 for place in seams}
        found["seams"] += len(seams)
        found["words"] += len(beside)
        heard = " ".join(chain(*windows))
        for chunk in jiwer.process_words(normalize(reference), heard).alignments[0]:
            words = len(beside.intersection(range(chunk.hyp_start_idx, chunk.hyp_end_idx)))
            if chunk.type == "substitute":
                found["substituted"] += words
            elif chunk.type == "insert":
                found["inserted"] += words
            elif chunk.type == "delete" and chunk.hyp_start_idx in seams:
                found["deleted"] += chunk.ref_end_idx - chunk.ref_start_idx
    return found


def is_repeated(words: list[str], start: int, end: int) -> bool:
    """Whether the inserted `words[start:end]` are three or more that stand right before or after, too."""
    size = end - start
    inserted = words[start:end]
    return size >= 3 and inserted in (words[max(0, start - size) : start], words[end : end + size])


def _inputs(waves: list[np.ndarray]) -> list[dict[str, Any]]:
    return [{"raw": wave, "sampling_rate": RATE} for wave in waves]


def measure(
    model: str, data: dict[str, Any], windows: list[float | None], whole: bool = False, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows: for each language of the `data` (keys of a `DataSpec`) one for each window size, and before them, unless the
    recordings are long by themselves (`whole`), one of single utterances."""
    pipe: Any = load_pipeline(model)
    limits = {"max_duration": 24 * 3600.0} if whole else {}
    recipe = from_dict({"audio_model": "-", "text_model": "-", "train": {**data, **limits}})
    rows, _ = prepare(recipe.train, "test", seed=seed)
    by_language: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_language[row["language"] or "basic"].append(row)
    results = []
    for language, own in tqdm(sorted(by_language.items()), desc="languages"):
        waves, references = [read_audio(row) for row in own], [row["text"] for row in own]
        long, spoken = (waves, references) if whole else ([concatenate(waves, seed)], [" ".join(references)])
        common = {
            "language": language,
            "recordings" if whole else "utterances": len(own),
            "seconds": round(sum(map(len, long)) / RATE, 1),
        }
        if not whole:
            texts = [answer["text"] for answer in pipe(_inputs(waves), batch_size=16)]
            results.append({**common, "windows": "single utterances", **figures(references, texts, language)})
        for size in windows:
            answers = pipe(_inputs(long), window_seconds=size, batch_size=16, return_timestamps=True)
            used = pipe.model.config.window_seconds if size is None else size
            cut = [[chunk["text"] for chunk in answer["chunks"]] for answer in answers]
            results.append(
                {
                    **common,
                    "windows": f"default ({used:g} s)" if size is None else f"{size:g} s",
                    "count": sum(map(len, cut)),
                    **figures(references, [answer["text"] for answer in answers], language),
                    "at_seams": seam_errors(list(zip(spoken, cut, strict=True)), language),
                }
            )
    return results


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("model", help="a model folder or Hub name")
    parser.add_argument("--dataset", default="embedded", help="whose utterances are joined (default: embedded)")
    parser.add_argument("--split", default="test", help="(default: test)")
    parser.add_argument("--language", help="of rows that name none")
    parser.add_argument(
        "--windows", type=float, nargs="*", default=[], help="further window sizes in seconds, beside the model's own"
    )
    parser.add_argument("--whole", action="store_true", help="the rows are long recordings; they are not joined")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(arguments.threads)
    data = {"dataset": arguments.dataset, "split": arguments.split, "language": arguments.language}
    rows = measure(arguments.model, data, [None, *arguments.windows], arguments.whole)
    result = {"dataset": Path(arguments.dataset).name, "split": arguments.split, "rows": rows}
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
