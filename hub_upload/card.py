"""A model's card: metadata and text from the facts in its folder, through the template in `model_cards/`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

import model_cards
from modeling_slam_asr.lora_slam_asr import ParameterReport
from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES
from trainers.errors import UserError
from trainers.evaluation.format import RATE_NAMES, percent, percent_with_interval
from trainers.results import RATES, Evaluation, ResultRow

from . import user_text
from .card_lines import TEXTS
from .facts import DEPTH_PLOT, ModelFacts, baseline_rows
from .foreign import OWN_METADATA
from .markdown import plain
from .model_index import figures_by_language, model_index, remarks
from .snippets import snippets
from .user_text import UserText

TEMPLATE = Path(model_cards.__file__).with_name("model_card.md.jinja")
TAGS = ("slam-asr", "whisper", "speech", "custom_code")


@dataclass(frozen=True)
class CardOptions:
    """
    What a card needs beside the facts.

    repo_id: where the model is (to be) published; it stands in the snippets. revision: branch or tag in the snippets.
    texts: the user's sections by name. extra_metadata: metadata that a card on the Hub has beside ours; `tags` are added to ours.
    """

    repo_id: str
    revision: str = "main"
    texts: dict[str, str] = field(default_factory=dict)
    extra_metadata: dict[str, Any] = field(default_factory=dict)


def make_card(facts: ModelFacts, options: CardOptions, links: Mapping[str, str]) -> ModelCard:
    """
    The card of a model.

    Args:
        links: repositories of the study's systems by name.
    """
    texts = options.texts
    sections = {name: user_text.wrap(name, texts.get(name, "")) for name in {*user_text.SECTIONS, *texts}}
    notes = "\n\n".join(sections[name] for name in sorted(sections) if name != "introduction")
    rows = result_rows(facts)
    report = facts.parameters
    pruned = report["total"] != report["total_unpruned"]
    with_baseline = any(row["baseline"] != "" for row in rows)
    return ModelCard.from_template(
        metadata(facts, options.repo_id, options.extra_metadata),
        template_path=str(TEMPLATE),
        title=options.repo_id.split("/")[-1],
        snippets=snippets(options.repo_id, options.revision),
        revision=options.revision,
        user_text={"introduction": sections["introduction"], "notes": notes},
        results=rows,
        further_rates=RATE_NAMES[1:],
        has_baseline=with_baseline,
        baseline_note=f"the unpruned, projector-only system is from [{facts.depth_path}]({facts.depth_path})"
        if with_baseline
        else "",
        pruned=pruned,
        parameters=parameter_rows(report, facts.trained_parameters),
        saving=(
            f"{percent(report['saving'])} of all parameters; {percent(report['paper']['saving'])} by the paper's accounting, "
            "which leaves the LLM out"
        ),
        depth_plot=DEPTH_PLOT if (facts.folder / DEPTH_PLOT).is_file() else None,
        depth_path=facts.depth_path,
        study=study_rows(facts.depth_rows, links),
        licence_parts=[{name: plain(value) for name, value in vars(part).items()} for part in facts.licence.parts],
        code={plain(name): sha256 for name, sha256 in facts.code.items()},
        **{name: text(facts) for name, text in TEXTS.items()},
    )  # fmt: skip


def metadata(facts: ModelFacts, repo_id: str, extra: dict[str, Any]) -> ModelCardData:
    """The card's YAML header."""
    licence = facts.licence
    relation = "finetune" if facts.config.get("checkpoint_form") == "standalone" else "adapter"
    kept = {key: value for key, value in extra.items() if key not in OWN_METADATA}
    results = model_index(facts)
    tags = list(dict.fromkeys([*TAGS, *(extra.get("tags") or [])]))
    return ModelCardData(
        language=facts.languages or None,
        license=licence.identifier,
        license_name=licence.name,
        license_link="README.md#licence" if licence.name else None,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        base_model=facts.base_models or None,
        base_model_relation=relation if facts.base_models else None,
        datasets=facts.datasets or None,
        metrics=[rate.key for rate in RATES] if facts.evaluations else None,
        tags=tags,
        model_name=repo_id.split("/")[-1] if results else None,
        eval_results=results or None,
        **kept,
    )


def result_rows(facts: ModelFacts) -> list[dict[str, object]]:
    """The rows of the result table, as text."""
    rows: list[dict[str, object]] = []
    for evaluation in facts.evaluations:
        for language, figures in figures_by_language(evaluation):
            baseline = _baseline_of(facts, language, figures)
            rows.append(
                {
                    "dataset": plain(_dataset_title(evaluation, facts)),
                    "language": plain(LANGUAGE_NAMES.get(language, language)) or "not said",
                    "utterances": f"{figures.get('utterances', 0):,}",
                    "words": f"{figures['reference_words']:,}",
                    "wer": word_error_rate(figures),
                    "further_rates": [percent(rate.of(figures)) for rate in RATES[1:]],
                    "baseline": word_error_rate(baseline) if baseline else "",
                    "change": _relative(figures.get("wer"), baseline.get("wer")) if baseline else "",
                    "normalizer": plain(evaluation.metrics.get("normalizer", "")),
                    "path": plain(evaluation.path),
                    "substitutions": figures["substitutions"],
                    "deletions": figures["deletions"],
                    "insertions": figures["insertions"],
                }
            )
    return rows


def _dataset_title(evaluation: Evaluation, facts: ModelFacts) -> str:
    data = evaluation.dataset
    name = " ".join(str(data[key]) for key in ("name", "config", "split") if data.get(key))
    return "; ".join([name, *remarks(evaluation, facts.generation)])


def _baseline_of(facts: ModelFacts, language: str, figures: Mapping[str, Any]) -> ResultRow | None:
    """
    The unpruned, projector-only row of the same base models on the same test words, of the same seed where there is one; None when
    this is it, or there is none.
    """
    if not facts.config.get("prune_encoder_layers") and not facts.config.get("lora"):
        return None
    recipe, config = facts.recipe, facts.config
    bases = [recipe.get(name) or config.get(f"{name}_id") for name in ("audio_model", "text_model")]
    same = [
        row
        for row in baseline_rows(facts.depth_rows)
        if row.get("language") == language
        and row["reference_words"] == figures["reference_words"]
        and [row.get("audio_model"), row.get("text_model")] == bases
        and None not in bases
    ]
    return min(same, key=lambda row: row.get("seed") != recipe.get("seed"), default=None)


def study_rows(rows: list[ResultRow], links: Mapping[str, str]) -> list[dict[str, object]]:
    """The rows of the study's table, as text; systems that are on the Hub are linked."""

    def name(row: ResultRow) -> str:
        shown = plain(row.get("name", ""))
        repo_id = links.get(str(row.get("name")))
        return f"[{shown}](https://huggingface.co/{repo_id})" if repo_id else shown

    return [
        {
            "name": name(row),
            "language": plain(LANGUAGE_NAMES.get(row.get("language", ""), row.get("language", ""))),
            "blocks": plain(row.get("encoder_layers", "")),
            "lora": "yes" if row.get("lora") else "no",
            "wer": word_error_rate(row),
            "parameters": f"{row['total_params']:,}" if row.get("total_params") else "",
            "substitutions": row["substitutions"],
            "deletions": row["deletions"],
            "insertions": row["insertions"],
        }
        for row in rows
    ]


def parameter_rows(report: ParameterReport, trained: int | None) -> list[dict[str, str]]:
    """The rows of the parameter table, as text; the trained ones as the training run counted them."""
    parts = [
        ("encoder", report["encoder"], report["encoder_unpruned"]),
        ("projector", report["projector"], report["projector"]),
        ("language model", report["language_model"], report["language_model"]),
        ("LoRA on the language model", report["lora"], report["lora"]),
        ("LoRA on the encoder", report["encoder_lora"], report["encoder_lora"]),
        ("total", report["total"], report["total_unpruned"]),
    ]
    rows = [
        {"part": label, "count": f"{count:,}", "unpruned": f"{unpruned:,}"}
        for label, count, unpruned in parts
        if count or label in ("total", "projector")
    ]
    counted = "not recorded" if trained is None else f"{trained:,}"
    return [*rows, {"part": "trained", "count": counted, "unpruned": ""}]


def word_error_rate(figures: Mapping[str, Any]) -> str:
    """`12.3 % [11.0, 13.7]`"""
    return percent_with_interval(figures.get("wer"), figures.get("wer_ci"))


def _relative(rate: float | None, baseline: float | None) -> str:
    return f"{100 * (rate / baseline - 1):+.1f} %" if rate is not None and baseline else "–"


def local_texts(folder: Path) -> dict[str, UserText]:
    """The user's sections in a folder's README.md."""
    path = folder / "README.md"
    if not path.is_file():
        return {}
    try:
        return user_text.extract(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}). Save it anew.") from error
