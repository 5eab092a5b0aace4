"""Long recordings made of short ones, transcribed by the pipeline, against the same utterances one at a time.

    python -m benchmarks.long_form MODEL [--dataset embedded] [--split test] [--language en] [--windows 10 25] [--output FILE.json]

The utterances of a test set are put one after another with pauses of 0.3 to 0.7 s of faint noise, a recording for each
language. What cutting and merging cost is the difference of the two word error rates. `lost` counts utterances of which no
word came back, and `doubled` places where three words or more came back a second time.
"""

import sys
import warnings
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

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


def is_repeated(words: list[str], start: int, end: int) -> bool:
    """Whether the inserted `words[start:end]` are three or more that stand right before or after, too."""
    size = end - start
    inserted = words[start:end]
    return size >= 3 and inserted in (words[max(0, start - size) : start], words[end : end + size])


def measure(model: str, data: dict[str, Any], windows: list[float | None], seed: int = 0) -> list[dict[str, Any]]:
    """Rows: for each language of the `data` (keys of a `DataSpec`) one of single utterances, then one for each window size."""
    pipe: Any = load_pipeline(model)
    recipe = from_dict({"audio_model": "-", "text_model": "-", "train": data})
    rows, _ = prepare(recipe.train, "test", seed=seed)
    by_language: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_language[row["language"] or "basic"].append(row)
    results = []
    for language, own in tqdm(sorted(by_language.items()), desc="languages"):
        waves, references = [read_audio(row) for row in own], [row["text"] for row in own]
        whole = concatenate(waves, seed)
        singles = [answer["text"] for answer in pipe([{"raw": w, "sampling_rate": RATE} for w in waves], batch_size=16)]
        common = {"language": language, "utterances": len(own), "seconds": round(len(whole) / RATE, 1)}
        results.append({**common, "windows": "single utterances", **figures(references, singles, language)})
        for size in windows:
            answer = pipe(
                {"raw": whole, "sampling_rate": RATE}, window_seconds=size, batch_size=16, return_timestamps=True
            )
            used = pipe.model.config.window_seconds if size is None else size
            results.append(
                {
                    **common,
                    "windows": f"default ({used:g} s)" if size is None else f"{size:g} s",
                    "count": len(answer["chunks"]),
                    **figures([" ".join(references)], [answer["text"]], language),
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
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(arguments.threads)
    data = {"dataset": arguments.dataset, "split": arguments.split, "language": arguments.language}
    rows = measure(arguments.model, data, [None, *arguments.windows])
    result = {"dataset": Path(arguments.dataset).name, "split": arguments.split, "rows": rows}
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
