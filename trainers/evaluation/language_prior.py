"""Is it the language prior? Whether the LLM's own text-only probability explains the errors that B fixed or made.

Each error of the first system is put alone into the reference, and the text scorer gives the log-probability of both
texts: the *pull* of an error is log P(reference) - log P(reference with this error). A positive pull means that the LLM,
without hearing anything, prefers the truth. If system B (say, with LoRA) works through the prior, then the errors that it
fixed have more pull than those that it kept, and the errors that it made are texts that the LLM prefers (negative pull).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
from jiwer import AlignmentChunk
from numpy.typing import NDArray

from trainers.errors import UserError
from trainers.evaluation.alignment import Alignment
from trainers.evaluation.bootstrap import Blocks, BootstrapSettings, draw_counts, interval, make_blocks
from trainers.results import BootstrapRecord, Origin

TextScorer = Callable[[list[str]], list[float]]
"""Log-probabilities (natural logarithm) of texts under a language model alone."""

FATES = ("fixed", "made", "kept")
DEFAULT_RESAMPLES = 2_000
EXAMPLES = 10


@dataclass(frozen=True)
class SingleError:
    """One stretch of wrong words. fate: "fixed" (A's, right in B), "kept" (A's, wrong in B too), "made" (B's only).

    one_word: one wrong word stands for one right word.
    """

    utterance: int
    fate: str
    one_word: bool
    reference: str
    with_error: str


class FatePull(TypedDict):
    """The errors of one fate: their mean pull in nats, and the share with positive pull; without errors there is neither."""

    errors: int
    mean_pull: NotRequired[float]
    mean_pull_ci: NotRequired[list[float] | None]
    positive_share: NotRequired[float]
    positive_share_ci: NotRequired[list[float] | None]


class PriorFigures(TypedDict):
    """What the prior says of a group of errors; a probability is None where a side of it has no errors."""

    fixed: FatePull
    made: FatePull
    kept: FatePull
    fixed_over_kept: float | None
    fixed_over_kept_ci: list[float] | None
    made_over_first: float | None
    made_over_first_ci: list[float] | None


class PriorExample(TypedDict):
    reference: str
    with_error: str
    log_p_reference: float
    log_p_with_error: float


class LanguagePrior(TypedDict):
    """`errors` are those found of each fate, `scored` how many of them all were scored."""

    errors: dict[str, int]
    scored: int
    bootstrap: BootstrapRecord
    all: PriorFigures
    one_word_substitutions: PriorFigures
    examples: dict[str, list[PriorExample]]


def language_prior(
    first: Sequence[Alignment],
    second: Sequence[Alignment],
    scorer: TextScorer,
    *,
    origins: Sequence[Origin] | None = None,
    settings: BootstrapSettings | None = None,
    limit: int | None = None,
) -> LanguagePrior:
    """How the errors that the second system fixed, made and kept stand to the language prior.

    For each fate: the number of errors, the mean pull in nats, the share with positive pull. `fixed_over_kept` is the
    probability that a fixed error has more pull than a kept one (0.5: the prior does not tell them apart),
    `made_over_first` that a made error has more pull than an error of the first system (below 0.5: the new errors are
    what the LLM likes). All have bootstrap intervals over utterances or speakers.

    Longer errors are kept more often, and deletions raise the probability of any text. Neither matters where one word
    stands for one word: draw conclusions from `one_word_substitutions`. limit: score a random sample of so many errors.
    """
    settings = settings or BootstrapSettings(DEFAULT_RESAMPLES)
    errors = single_errors(first, second)
    found = {fate: sum(e.fate == fate for e in errors) for fate in FATES}
    if limit is not None and len(errors) > limit:
        chosen = np.random.default_rng(settings.seed).choice(len(errors), size=limit, replace=False)
        errors = [errors[i] for i in sorted(chosen)]
    logs = score_errors(errors, scorer)
    pulls = logs[:, 0] - logs[:, 1]
    blocks = make_blocks(len(first), origins)
    one_word = np.array([e.one_word for e in errors], dtype=bool)
    return {
        "errors": found,
        "scored": len(errors),
        "bootstrap": settings.describe(blocks),
        "all": _figures(errors, pulls, np.ones(len(errors), dtype=bool), blocks, settings),
        "one_word_substitutions": _figures(errors, pulls, one_word, blocks, settings),
        "examples": _examples(errors, logs),
    }


def single_errors(first: Sequence[Alignment], second: Sequence[Alignment]) -> list[SingleError]:
    """Every error of either system, each alone in its reference. An error is a stretch between correct words."""
    errors = []
    for utterance, (a, b) in enumerate(zip(first, second, strict=True)):
        regions_a, regions_b = a.error_runs(), b.error_runs()
        for region in regions_a:
            kept = any(_touch(region, other) for other in regions_b)
            errors.append(_single(utterance, "kept" if kept else "fixed", a, region))
        errors += [
            _single(utterance, "made", b, region)
            for region in regions_b
            if not any(_touch(region, other) for other in regions_a)
        ]
    return errors


def score_errors(errors: Sequence[SingleError], scorer: TextScorer) -> NDArray[np.float64]:
    """log P(reference) and log P(reference with the error) in nats, shape (errors, 2). Every text is scored once."""
    unique = sorted({text for e in errors for text in (e.reference, e.with_error)})
    scores = scorer(unique) if unique else []
    if len(scores) != len(unique) or not np.all(np.isfinite(np.asarray(scores, dtype=np.float64))):
        raise ValueError(f"The text scorer must give one finite log-probability for each of the {len(unique)} texts.")
    table = dict(zip(unique, scores, strict=True))
    return np.array([(table[e.reference], table[e.with_error]) for e in errors], dtype=np.float64).reshape(-1, 2)


def causal_lm_scorer(
    model: Any, tokenizer: Any, *, prefix: str | None = None, end_of_text: bool = True, batch_size: int = 16
) -> TextScorer:
    """A text scorer from a transformers causal LM: the sum of log P(token | before), in nats, computed in float32.

    prefix: the text before, not scored itself, such as the prompt, after the BOS token where there is one. Without it the
    BOS or else the EOS token alone, so that the first token has something to be predicted from. end_of_text: score the EOS after the text too, so that going
    on and stopping early cost what the model thinks of them. The model's device and training mode are left as they are.
    """
    import torch

    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    start = bos if bos is not None or prefix is not None else eos
    before = [] if start is None else [start]
    before += tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else []
    if not before:
        raise ValueError("The tokenizer has neither BOS nor EOS: pass a prefix, so that the first token can be scored.")
    after = [eos] if end_of_text and eos is not None else []

    def scorer(texts: list[str]) -> list[float]:
        sequences = [before + tokenizer(text, add_special_tokens=False)["input_ids"] + after for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(sequences[i]))
        scores = [0.0] * len(texts)
        with torch.inference_mode():
            for batch_start in range(0, len(order), batch_size):
                rows = order[batch_start : batch_start + batch_size]
                for row, value in zip(
                    rows, _log_probabilities(model, [sequences[i] for i in rows], len(before)), strict=True
                ):
                    scores[row] = value
        return scores

    return scorer


def load_scorer(model_id: str, *, prefix: str | None = None, batch_size: int = 16) -> TextScorer:
    """A text scorer from a folder or Hub id of a causal LM, on the GPU if there is one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_id)
        model: Any = AutoModelForCausalLM.from_pretrained(model_id, dtype="auto")
    except (OSError, ValueError) as error:
        raise UserError(f"The language model {model_id} cannot be loaded: {error}") from error
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return causal_lm_scorer(model, tokenizer, prefix=prefix, batch_size=batch_size)


def _log_probabilities(model: Any, sequences: list[list[int]], skip: int) -> list[float]:
    """Sum of token log-probabilities after the first `skip` tokens, for a batch padded on the right."""
    import torch

    length = max(len(s) for s in sequences)
    ids = torch.tensor([s + [0] * (length - len(s)) for s in sequences], device=model.device)  # (B, T)
    mask = torch.tensor([[1] * len(s) + [0] * (length - len(s)) for s in sequences], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]  # (B, T - 1, V)
    # One text after the other: a large vocabulary in float32 for all of them takes gigabytes.
    chosen = torch.stack([_chosen(row, following) for row, following in zip(logits, ids[:, 1:], strict=True)])
    scored = mask[:, 1:].clone()
    scored[:, : skip - 1] = 0
    return [float(x) for x in (chosen * scored).sum(dim=1)]


def _chosen(logits: Any, ids: Any) -> Any:
    """The log-probability of each of `ids`, `(T,)`, under `logits`, `(T, V)`."""
    return logits.float().log_softmax(dim=-1).gather(-1, ids[:, None])[:, 0]


def _figures(
    errors: Sequence[SingleError],
    pulls: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    blocks: Blocks,
    settings: BootstrapSettings,
) -> PriorFigures:
    fates = np.array([e.fate for e in errors], dtype=object)
    block = blocks.index[np.array([e.utterance for e in errors], dtype=np.int64)]
    groups = {fate: np.flatnonzero(chosen & (fates == fate)) for fate in FATES}
    groups["first"] = np.sort(np.concatenate([groups["fixed"], groups["kept"]]))
    draws = np.concatenate(list(draw_counts(blocks, settings))).astype(np.int32)

    def mean(values: NDArray[np.float64], rows: NDArray[np.int64]) -> tuple[float, list[float] | None]:
        samples = _resampled_means(values, block[rows], draws)
        return float(values.mean()), interval(samples, blocks, settings)

    def pull(fate: str) -> FatePull:
        rows = groups[fate]
        if not len(rows):
            return {"errors": 0}
        pulled, pulled_ci = mean(pulls[rows], rows)
        share, share_ci = mean((pulls[rows] > 0).astype(float), rows)
        return {
            "errors": len(rows),
            "mean_pull": pulled,
            "mean_pull_ci": pulled_ci,
            "positive_share": share,
            "positive_share_ci": share_ci,
        }

    fixed, fixed_ci = _superiority(groups["fixed"], groups["kept"], pulls, block, draws, blocks, settings)
    made, made_ci = _superiority(groups["made"], groups["first"], pulls, block, draws, blocks, settings)
    return {
        "fixed": pull("fixed"),
        "made": pull("made"),
        "kept": pull("kept"),
        "fixed_over_kept": fixed,
        "fixed_over_kept_ci": fixed_ci,
        "made_over_first": made,
        "made_over_first_ci": made_ci,
    }


def _resampled_means(
    values: NDArray[np.float64], block: NDArray[np.int64], draws: NDArray[np.int32]
) -> NDArray[np.float64]:
    sums = np.bincount(block, weights=values, minlength=draws.shape[1])
    counts = np.bincount(block, minlength=draws.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (draws @ sums) / (draws @ counts)


def _superiority(
    upper: NDArray[np.int64],
    lower: NDArray[np.int64],
    pulls: NDArray[np.float64],
    block: NDArray[np.int64],
    draws: NDArray[np.int32],
    blocks: Blocks,
    settings: BootstrapSettings,
) -> tuple[float | None, list[float] | None]:
    """P(upper > lower) + P(equal) / 2, the area under the ROC curve, with its interval under resampling of blocks."""
    if not len(upper) or not len(lower):
        return None, None
    values, rank = np.unique(pulls, return_inverse=True)

    def area(weights: NDArray[np.int32]) -> float:
        high = np.bincount(rank[upper], weights=weights[block[upper]], minlength=len(values))
        low = np.bincount(rank[lower], weights=weights[block[lower]], minlength=len(values))
        total = high.sum() * low.sum()
        return float((high * (np.cumsum(low) - low / 2)).sum() / total) if total else float("nan")

    samples = np.array([area(weights) for weights in draws])
    return area(np.ones(blocks.count, dtype=np.int32)), interval(samples, blocks, settings)


def _examples(errors: Sequence[SingleError], logs: NDArray[np.float64]) -> dict[str, list[PriorExample]]:
    """The errors of each fate that the prior speaks on most: most pull for fixed and kept, least for made."""
    pulls = logs[:, 0] - logs[:, 1]
    examples: dict[str, list[PriorExample]] = {}
    for fate in FATES:
        rows = [i for i, e in enumerate(errors) if e.fate == fate]
        rows.sort(key=lambda i: pulls[i], reverse=fate != "made")
        examples[fate] = [
            {
                "reference": errors[i].reference,
                "with_error": errors[i].with_error,
                "log_p_reference": float(logs[i, 0]),
                "log_p_with_error": float(logs[i, 1]),
            }
            for i in rows[:EXAMPLES]
        ]
    return examples


def _touch(first: list[AlignmentChunk], second: list[AlignmentChunk]) -> bool:
    """Whether two regions share a reference word, or a gap between words where either inserts."""
    (start_a, end_a), (start_b, end_b) = _span(first), _span(second)
    if start_a == end_a or start_b == end_b:
        return start_a <= end_b and start_b <= end_a
    return start_a < end_b and start_b < end_a


def _span(region: list[AlignmentChunk]) -> tuple[int, int]:
    return region[0].ref_start_idx, region[-1].ref_end_idx


def _single(utterance: int, fate: str, alignment: Alignment, region: list[AlignmentChunk]) -> SingleError:
    start, end = _span(region)
    replacement = alignment.hypothesis[region[0].hyp_start_idx : region[-1].hyp_end_idx]
    words = alignment.reference[:start] + replacement + alignment.reference[end:]
    one_word = end - start == 1 == len(replacement)
    return SingleError(utterance, fate, one_word, " ".join(alignment.reference), " ".join(words))
