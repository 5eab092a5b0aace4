"""Make transformers know SLAM-ASR without `trust_remote_code`: auto classes and the ASR pipeline. Not part of checkpoints."""

from typing import Any

from transformers import (
    AutoConfig,
    AutomaticSpeechRecognitionPipeline,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    Pipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_slam_asr import SlamAsrConfig
from .modeling_slam_asr import SlamAsrForConditionalGeneration
from .pipeline_slam_asr import SlamAsrPipeline
from .processing_slam_asr import SlamAsrProcessor


class AsrPipeline(AutomaticSpeechRecognitionPipeline):
    """What `pipeline("automatic-speech-recognition")` makes: ours for SLAM-ASR models, transformers' own for all others."""

    _load_processor = SlamAsrPipeline._load_processor  # type: ignore[assignment]

    def __new__(cls, model: Any, *args: Any, **kwargs: Any) -> Pipeline:  # type: ignore[misc]
        if model.config.model_type == SlamAsrConfig.model_type:
            return SlamAsrPipeline(model, *args, **kwargs)
        kwargs.pop("processor", None)  # transformers' own takes none
        return AutomaticSpeechRecognitionPipeline(model, *args, **kwargs)


def register() -> None:
    """Register the classes; a second call changes nothing."""
    AutoConfig.register(SlamAsrConfig.model_type, SlamAsrConfig, exist_ok=True)
    AutoModel.register(SlamAsrConfig, SlamAsrForConditionalGeneration, exist_ok=True)
    AutoModelForSpeechSeq2Seq.register(SlamAsrConfig, SlamAsrForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(SlamAsrConfig, SlamAsrProcessor, exist_ok=True)
    # `register_pipeline` would warn that the task exists and would drop its default model and its CTC and TDT classes.
    PIPELINE_REGISTRY.supported_tasks["automatic-speech-recognition"]["impl"] = AsrPipeline
