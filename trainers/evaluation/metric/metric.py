"""Corpus word and character error rates with bootstrap intervals, as a module for Hugging Face `evaluate`."""

import datasets
import evaluate

from trainers.evaluation import score

_DESCRIPTION = """Word error rate and character error rate of a corpus (errors over reference units, not a mean of
sentences), with the counts, the sentence error rate and bootstrap intervals."""

_INPUTS = """
Args:
    predictions (list of str): one transcript for each utterance.
    references (list of str): what was said; empty strings are allowed.
    normalizer (str): a language, or basic, paper or none; by default the language's own, or basic.
    language (str): language code, which chooses the normalizer.
    bootstrap (int): number of resamples, 0 for no intervals.
    confidence (float): level of the intervals.
    seed (int): seed of the resampling.
Returns:
    wer, wer_ci, cer, cer_ci, sentence_error_rate, substitutions, deletions, insertions, hits, reference_words and more.
    Rates are fractions.
Examples:
    >>> metric = evaluate.load("trainers/evaluation/metric")
    >>> metric.compute(predictions=["the cat sat"], references=["the cat sat down"], normalizer="none")["wer"]
    0.25
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class SpeechErrorRates(evaluate.Metric):
    """The metric that `evaluate.load` finds in this folder."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references, **options):  # type: ignore[no-untyped-def]
        return score(references, predictions, **options)
