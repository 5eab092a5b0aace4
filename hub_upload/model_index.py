"""Results as the Hub reads them: the `model-index` of a card, and `.eval_results/*.yaml` beside it. Rates are in per cent there."""

from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from trainers.results import RATES, Evaluation, ScoreTable

from .checks import is_hub_id
from .facts import ModelFacts

EVAL_RESULTS = ".eval_results/slam-asr.yaml"


def figures_by_language(evaluation: Evaluation) -> list[tuple[str, ScoreTable]]:
    """The figures of each language of a test set, then of all; of the whole set alone when there is one language."""
    groups = evaluation.metrics.get("by_language") or {}
    if len(groups) > 1:
        return [*sorted(groups.items()), ("all", evaluation.metrics)]
    return [(evaluation.languages[0] if evaluation.languages else "", evaluation.metrics)]


def model_index(facts: ModelFacts) -> list[EvalResult]:
    """The rates of each test set, and language of it, in per cent."""
    results = []
    for evaluation in facts.evaluations:
        data = evaluation.dataset
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
                            metric_name=rate.name,
                            metric_value=per_cent(value),
                        )
                    )
    return results


def eval_results(facts: ModelFacts) -> list[dict[str, Any]]:
    """The content of `.eval_results/*.yaml`: the WER of each test set that is on the Hub, in per cent."""
    entries = []
    for evaluation in facts.evaluations:
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
                    notes=f"word error rate in per cent, split {data.get('split') or 'not said'}; see {evaluation.path}",
                )
            )
    return eval_result_entries_to_yaml(entries)


def per_cent(rate: float) -> float:
    """A fraction in per cent with two digits, as the Hub's models write it."""
    return round(100 * rate, 2)
