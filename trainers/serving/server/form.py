"""A transcription request's fields: OpenAI's names, checked; and what they ask of the pipeline."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES
from trainers.evaluation.normalizers import language_code
from trainers.inference import subtitles
from trainers.recipes.checked_dataclasses import nearest
from trainers.serving.server.errors import ApiError

RESPONSE_FORMATS = ("json", "text", "verbose_json", *subtitles.FORMATS)
LEAST_TEMPERATURE = 1e-3  # below it sampling divides by next to nothing, and takes the likeliest token
LONGEST_PROMPT = 2000  # characters: names and terms, not a book
Options = tuple[tuple[str, Any], ...]
"""Keyword arguments of the pipeline's `forward`, sorted by name: windows with equal ones may share a batch."""


def _or_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


class TranscriptionForm(BaseModel):
    """The fields of `POST /v1/audio/transcriptions`, but `file`."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="A name that /v1/models lists.")
    language: Annotated[str | None, BeforeValidator(_or_none)] = Field(
        None, description="The language spoken, as code or name."
    )
    prompt: Annotated[str | None, BeforeValidator(_or_none)] = Field(
        None,
        max_length=LONGEST_PROMPT,
        description="Names or terms to expect, for models that were trained with context.",
    )
    response_format: Literal[RESPONSE_FORMATS] = "json"  # type: ignore[valid-type]
    temperature: float = Field(0.0, ge=0.0, le=1.0, description="0: the model's own decoding; above: sampling.")
    timestamp_granularities: list[Literal["segment", "word"]] = Field(default_factory=list)
    include: list[Literal["logprobs"]] = Field(default_factory=list, description="logprobs: each token's, with json.")
    stream: bool = Field(False, description="Server-sent events while windows finish; with json or text.")
    chunking_strategy: Literal["auto"] | None = Field(None, description="Recordings are cut at pauses in any case.")

    @property
    def words(self) -> bool:
        """Whether times of words are wanted."""
        return "word" in self.timestamp_granularities

    @property
    def confidence(self) -> bool | str:
        """The pipeline's `return_confidence`."""
        if "logprobs" in self.include:
            return "tokens"
        return self.response_format == "verbose_json" or self.response_format in subtitles.FORMATS

    def options(self) -> Options:
        """What the pipeline's `forward` is to be given."""
        wanted: dict[str, Any] = {"return_confidence": bool(self.confidence)}
        if self.words:
            wanted["return_timestamps"] = "word"
        if self.temperature >= LEAST_TEMPERATURE:
            wanted |= {"do_sample": True, "num_beams": 1, "temperature": self.temperature}
        return tuple(sorted(wanted.items()))


_LISTS = {name for name, field in TranscriptionForm.model_fields.items() if str(field.annotation).startswith("list[")}


def read_form(
    fields: Iterable[tuple[str, str]], *, model_names: tuple[str, ...], times_of_words: bool
) -> TranscriptionForm:
    """
    The request that a form's fields make; `language` is a code in it.

    Args:
        times_of_words: whether the model can give them.
    Raises:
        ApiError: 400 for what is wrong or cannot be, 404 for another model.
    """
    values: dict[str, Any] = {}
    for key, value in fields:
        name = key.removesuffix("[]")
        if name in _LISTS:
            values.setdefault(name, []).append(value)
        elif key in values:
            raise ApiError(400, f"The field {key!r} is there twice. Give it once.", param=key)
        else:
            values[key] = value
    try:
        form = TranscriptionForm.model_validate(values)
    except ValidationError as error:
        raise _refusal(error) from None
    if form.model and form.model not in model_names:
        known = ", ".join(map(repr, model_names))
        raise ApiError(
            404,
            f"There is no model {form.model[:100]!r} here; this server has {known}.",
            param="model",
            code="model_not_found",
        )
    if form.language is not None:
        code = language_code(form.language)
        if code not in LANGUAGE_NAMES:
            raise ApiError(
                400,
                f"The language {form.language[:50]!r} is unknown. Known are {', '.join(sorted(LANGUAGE_NAMES))}, and their names.",
                param="language",
                code="unknown_language",
            )
        form = form.model_copy(update={"language": code})
    _check_together(form, times_of_words)
    return form


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        known = [*TranscriptionForm.model_fields, "file"]
        hint = nearest(name, known) or f" Known are {', '.join(known)}."
        return ApiError(400, f"The field {name[:50]!r} is unknown.{hint}", param=name[:50], code="unknown_parameter")
    message = first["msg"].rstrip(".")
    return ApiError(400, f"{name}: {message}, got {str(first['input'])[:50]!r}.", param=name, code="invalid_value")


def _check_together(form: TranscriptionForm, times_of_words: bool) -> None:
    form_of_answer = form.response_format
    if form.timestamp_granularities and form_of_answer != "verbose_json":
        raise ApiError(
            400,
            f"timestamp_granularities needs response_format=verbose_json; {form_of_answer} has no place for times.",
            param="timestamp_granularities",
        )
    if form.words and not times_of_words:
        raise ApiError(
            400,
            "This model cannot tell the times of words. Ask for timestamp_granularities[]=segment.",
            param="timestamp_granularities",
        )
    if form.include and form_of_answer != "json":
        raise ApiError(400, f"include[]=logprobs needs response_format=json, got {form_of_answer}.", param="include")
    if form.stream and form_of_answer not in ("json", "text"):
        raise ApiError(
            400,
            f"stream=true goes with response_format json or text; {form_of_answer} is whole or not at all.",
            param="stream",
        )
