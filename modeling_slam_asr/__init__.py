"""SLAM-ASR as a Hugging Face model: importing this package registers it with the auto classes and the ASR pipeline."""

from .configuration_slam_asr import SlamAsrConfig
from .modeling_slam_asr import SlamAsrForConditionalGeneration
from .pipeline_slam_asr import SlamAsrPipeline
from .processing_slam_asr import SlamAsrProcessor
from .registration import register

register()

__all__ = ["SlamAsrConfig", "SlamAsrForConditionalGeneration", "SlamAsrPipeline", "SlamAsrProcessor"]
