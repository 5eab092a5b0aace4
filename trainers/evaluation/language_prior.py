"""Is it the language prior? Whether the LLM's own text-only probability explains the errors that B fixed or made.

Each error of the first system is put alone into the reference, and the text scorer gives the log-probability of both
texts: the *pull* of an error is log P(reference) - log P(reference with this error). A positive pull means that the LLM,
without hearing anything, prefers the truth. If system B (say, with LoRA) works through the prior, then the errors that it
fixed have more pull than those that it kept, and the errors that it made are texts that the LLM prefers (negative pull).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.errors import UserError
from trainers.evaluation.alignment import EQUAL, Alignment, Operation
from trainers.evaluation.bootstrap import Blocks, BootstrapSettings, interval, make_blocks

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


def language_prior(
    first: Sequence[Alignment],
    second: Sequence[Alignment],
    scorer: TextScorer,
    *,
    speakers: Sequence[str | None] | None = None,
    settings: BootstrapSettings | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
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
    blocks = make_blocks(len(first), speakers)
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
        regions_a, regions_b = _regions(a), _regions(b)
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
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()  # (B, T - 1, V)
    chosen = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:, None])[..., 0]
    scored = mask[:, 1:].clone()
    scored[:, : skip - 1] = 0
    return [float(x) for x in (chosen * scored).sum(dim=1)]


def _figures(
    errors: Sequence[SingleError],
    pulls: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    blocks: Blocks,
    settings: BootstrapSettings,
) -> dict[str, Any]:
    fates = np.array([e.fate for e in errors], dtype=object)
    block = blocks.index[np.array([e.utterance for e in errors], dtype=np.int64)]
    groups = {fate: np.flatnonzero(chosen & (fates == fate)) for fate in FATES}
    groups["first"] = np.sort(np.concatenate([groups["fixed"], groups["kept"]]))
    draws = _block_draws(blocks, settings)
    figures: dict[str, Any] = {}
    for fate in FATES:
        rows = groups[fate]
        figures[fate] = {"errors": len(rows)}
        if len(rows):
            for name, values in {"mean_pull": pulls[rows], "positive_share": (pulls[rows] > 0).astype(float)}.items():
                figures[fate][name] = float(values.mean())
                samples = _resampled_means(values, block[rows], draws)
                figures[fate][f"{name}_ci"] = interval(samples, blocks.count, settings)
    for upper, lower in (("fixed", "kept"), ("made", "first")):
        figures |= _superiority(f"{upper}_over_{lower}", groups[upper], groups[lower], pulls, block, draws, settings)
    return figures


def _block_draws(blocks: Blocks, settings: BootstrapSettings) -> NDArray[np.int32]:
    """How often each block is drawn in each resample, shape (resamples, blocks)."""
    generator = np.random.default_rng(settings.seed)
    draws = np.empty((settings.resamples, blocks.count), dtype=np.int32)
    for row in draws:
        row[:] = np.bincount(generator.integers(0, blocks.count, blocks.count), minlength=blocks.count)
    return draws


def _resampled_means(
    values: NDArray[np.float64], block: NDArray[np.int64], draws: NDArray[np.int32]
) -> NDArray[np.float64]:
    sums = np.bincount(block, weights=values, minlength=draws.shape[1])
    counts = np.bincount(block, minlength=draws.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (draws @ sums) / (draws @ counts)


def _superiority(
    name: str,
    upper: NDArray[np.int64],
    lower: NDArray[np.int64],
    pulls: NDArray[np.float64],
    block: NDArray[np.int64],
    draws: NDArray[np.int32],
    settings: BootstrapSettings,
) -> dict[str, Any]:
    """P(upper > lower) + P(equal) / 2, the area under the ROC curve, with its interval under resampling of blocks."""
    if not len(upper) or not len(lower):
        return {name: None, f"{name}_ci": None}
    values, rank = np.unique(pulls, return_inverse=True)

    def area(weights: NDArray[np.int32]) -> float:
        high = np.bincount(rank[upper], weights=weights[block[upper]], minlength=len(values))
        low = np.bincount(rank[lower], weights=weights[block[lower]], minlength=len(values))
        total = high.sum() * low.sum()
        return float((high * (np.cumsum(low) - low / 2)).sum() / total) if total else float("nan")

    samples = np.array([area(weights) for weights in draws])
    blocks = draws.shape[1]
    return {name: area(np.ones(blocks, dtype=np.int32)), f"{name}_ci": interval(samples, blocks, settings)}


def _examples(errors: Sequence[SingleError], logs: NDArray[np.float64]) -> dict[str, list[dict[str, Any]]]:
    """The errors of each fate that the prior speaks on most: most pull for fixed and kept, least for made."""
    pulls = logs[:, 0] - logs[:, 1]
    examples = {}
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


def _regions(alignment: Alignment) -> list[tuple[Operation, ...]]:
    """Runs of wrong operations between correct words."""
    regions: list[list[Operation]] = []
    open_region = False
    for op in alignment.operations:
        if op.kind == EQUAL:
            open_region = False
        elif open_region:
            regions[-1].append(op)
        else:
            regions.append([op])
            open_region = True
    return [tuple(region) for region in regions]


def _touch(first: tuple[Operation, ...], second: tuple[Operation, ...]) -> bool:
    """Whether two regions share a reference word, or a gap between words where either inserts."""
    (start_a, end_a), (start_b, end_b) = _span(first), _span(second)
    if start_a == end_a or start_b == end_b:
        return start_a <= end_b and start_b <= end_a
    return start_a < end_b and start_b < end_a


def _span(region: tuple[Operation, ...]) -> tuple[int, int]:
    return region[0].ref_start, region[-1].ref_end


def _single(utterance: int, fate: str, alignment: Alignment, region: tuple[Operation, ...]) -> SingleError:
    start, end = _span(region)
    replacement = alignment.hypothesis[region[0].hyp_start : region[-1].hyp_end]
    words = alignment.reference[:start] + replacement + alignment.reference[end:]
    one_word = end - start == 1 == len(replacement)
    return SingleError(utterance, fate, one_word, " ".join(alignment.reference), " ".join(words))
