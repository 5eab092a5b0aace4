"""What a transcript's reader should know and would not see: marks of an answer, and requests that do nothing."""

import json

from modeling_slam_asr.transcripts_slam_asr import CONTEXT_PROMPT, LANGUAGE_NAMES, Answer, Chunk
from trainers.embedded.base_models import base_model
from trainers.engines import AsrPipeline
from trainers.evaluation.normalizers import language_code

LOW_CONFIDENCE = 0.6
# Of the quickstart's model: 22 of 24 recordings of people stay below it, and 6 of 24 of its own test set.
LOW_CONFIDENCE_OF_MINIATURE = 0.8


def request_notices(pipe: AsrPipeline, language: str | None, context: str | None) -> list[str]:
    """What is asked for and changes nothing, or what the model cannot know."""
    processor = pipe.processor
    notices = []
    if language is not None:
        if language_code(language) not in LANGUAGE_NAMES:
            notices.append(
                f"--language {language}: no language of this code or name is known; codes are such as nl, da, en."
            )
        if processor.language_prompt is None:
            notices.append(f"--language {language} changes nothing: this model's prompt names no language.")
    if context and processor.context_prompt == CONTEXT_PROMPT:
        notices.append(
            "--context: nothing says that this model was trained with context; its transcripts may get worse by it."
        )
    return notices


def answer_notices(answer: Answer, synthetic: bool) -> list[str]:
    """What is doubtful about one answer of the pipeline, as `assemble` marks it.

    synthetic: whether the model heard synthetic speech only (`knows_synthetic_speech_only`).
    """
    notices = []
    if answer.get("incomplete"):
        notices.append("the file is cut short: what is there is transcribed. Get a whole copy of it.")
    if answer.get("no_speech"):
        what = "its text is most likely invented" if answer["text"] else "nothing was transcribed"
        notices.append(f"no speech was found, only silence or steady noise: {what}.")
    if answer.get("loop"):
        notices.append("the transcript ran into a repetition; the first copy is kept.")
    elif answer.get("truncated"):
        notices.append("the transcript did not end by itself; its end may be missing or invented.")
    if is_unsure(answer, synthetic):
        why = (
            "THIS MODEL KNOWS SYNTHETIC VOICES ONLY: it cannot transcribe people. Train one on real speech"
            if synthetic
            else "another language than the model was trained on, noise, or speech that is hard to hear"
        )
        notices.append(f"the model is not sure of this text (confidence {answer['confidence']:.2f}): {why}.")
    return notices


def is_unsure(answer: Answer | Chunk, synthetic: bool) -> bool:
    """Whether the answer's confidence is as low as for speech that the model cannot know."""
    confidence = answer.get("confidence")
    return bool(answer["text"]) and confidence is not None and confidence < low_confidence(synthetic)


def low_confidence(synthetic: bool) -> float:
    """Below it a text is probably wrong: the one number of `transcribe`, the server, subtitles and the demo."""
    return LOW_CONFIDENCE_OF_MINIATURE if synthetic else LOW_CONFIDENCE


def knows_synthetic_speech_only(pipe: AsrPipeline) -> bool:
    """Whether the model's encoder has the embedded miniature's width: that has heard a speech synthesiser only."""
    return has_miniature_width(pipe.model.config.audio_config.d_model)


def has_miniature_width(width: int | None) -> bool:
    """Whether this is the width (`d_model`) of the embedded miniature's encoder."""
    with open(f"{base_model('embedded/encoder')}/config.json", encoding="utf-8") as file:
        return bool(width == json.load(file)["d_model"])
