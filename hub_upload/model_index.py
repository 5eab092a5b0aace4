"""Results as the Hub reads them: the `model-index` of a card, and `.eval_results/*.yaml` beside it. Rates are in per cent there."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from trainers.results import RATES, Evaluation, ScoreTable

from .checks import is_hub_id
from .facts import ModelFacts

EVAL_RESULTS = ".eval_results/slam-asr.yaml"
DECODING = {"num_beams": 1, "max_new_tokens": None, "ctc_weight": 0, "do_sample": False}
"""What `slam-asr evaluate` can decode otherwise than the model does by itself, each with what holds where nothing is said."""


def figures_by_language(evaluation: Evaluation) -> list[tuple[str, ScoreTable]]:
    """The figures of each language of a test set, then of all; of the whole set alone when there is one language."""
    groups = evaluation.metrics.get("by_language") or {}
    if len(groups) > 1:
        return [*sorted(groups.items()), ("all", evaluation.metrics)]
    return [(evaluation.languages[0] if evaluation.languages else "", evaluation.metrics)]


def remarks(evaluation: Evaluation, generation: Mapping[str, Any]) -> list[str]:
    """
    What sets a result apart from that of the whole test set, decoded as the model does by itself; empty where nothing does.

    Args:
        generation: the model's own settings of decoding.
    """
    metrics, told = evaluation.metrics, []
    if left_out := metrics.get("left_out"):
        told.append(f"{left_out:,} further utterances left out")
    if (decoding := metrics.get("decoding")) is not None:
        pairs = {name: (decoding.get(name, usual), generation.get(name, usual)) for name, usual in DECODING.items()}
        changed = [f"{name}={used}" for name, (used, own) in pairs.items() if used != own]
        told += [f"decoded with {', '.join(changed)}"] if changed else []
    return told


def model_index(facts: ModelFacts) -> list[EvalResult]:
    """The rates of each whole test set, and language of it, in per cent."""
    results = []
    for evaluation in whole_test_sets(facts):
        data = evaluation.dataset
        told = "".join(f" ({remark})" for remark in remarks(evaluation, facts.generation))
        for language, figures in figures_by_language(evaluation):
            if language == "all":
                continue
            for rate in RATES:
                value = rate.of(figures)
                if value is not None:
                    results.append(
                        EvalResult(
                            task_type="automatic-speech-recognition",
                            task_name="Automatic Speech Recognition",
                            dataset_type=str(data["name"]),
                            dataset_name=f"{data['name']} ({language})" if language else str(data["name"]),
                            dataset_config=data.get("config") or language or None,
                            dataset_split=data.get("split"),
                            dataset_revision=data.get("revision"),
                            metric_type=rate.key,
                            metric_name=rate.name + told,
                            metric_value=per_cent(value),
                        )
                    )
    return results


def eval_results(facts: ModelFacts) -> list[dict[str, Any]]:
    """The content of `.eval_results/*.yaml`: the WER of each whole test set that is on the Hub, in per cent."""
    entries = []
    for evaluation in whole_test_sets(facts):
        data = evaluation.dataset
        rate = evaluation.metrics.get("wer")
        if is_hub_id(str(data["name"])) and rate is not None:
            entries.append(
                EvalResultEntry(
                    dataset_id=str(data["name"]),
                    task_id=data.get("config") or "default",
                    value=per_cent(rate),
                    dataset_revision=data.get("revision"),
                    source_url=f"https://huggingface.co/datasets/{data['name']}",
                    notes="; ".join(
                        [
                            f"word error rate in per cent, split {data.get('split') or 'not said'}",
                            *remarks(evaluation, facts.generation),
                            f"see {evaluation.path}",
                        ]
                    ),
                )
            )
    return eval_result_entries_to_yaml(entries)


def whole_test_sets(facts: ModelFacts) -> list[Evaluation]:
    """The results that others' results on the same test set can be compared with."""
    return [evaluation for evaluation in facts.evaluations if not evaluation.metrics.get("left_out")]


def per_cent(rate: float) -> float:
    """A fraction in per cent with two digits, as the Hub's models write it."""
    return round(100 * rate, 2)
