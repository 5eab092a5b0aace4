"""`pipeline("automatic-speech-recognition")` for SLAM-ASR models."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader
from transformers import AutomaticSpeechRecognitionPipeline
from transformers.pipelines.pt_utils import PipelineChunkIterator, PipelineIterator, PipelinePackIterator

from .processing_slam_asr import SlamAsrProcessor, pad_features, pad_rows


class SlamAsrPipeline(AutomaticSpeechRecognitionPipeline):
    """
    Transcribe recordings: `{"text": ...}` each.

    Inputs are paths, file contents, arrays, mappings with `array` and `sampling_rate`, or lists and generators of them.
    """

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.type = "seq2seq"
        # The stock defaults (5 beams, 256 tokens) are Whisper's; the model's own generation configuration counts here.
        self._generation_defaults: dict[str, Any] = {}
        if not isinstance(self.processor, SlamAsrProcessor):
            self.processor = SlamAsrProcessor.from_config(model.config, self.feature_extractor, self.tokenizer)

    def _sanitize_parameters(
        self,
        language: str | None = None,
        prompt: str | None = None,
        context: str | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **other: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        asked = {"language": language, "prompt": prompt, "context": context}
        return {k: v for k, v in asked.items() if v is not None}, {**(generate_kwargs or {}), **other}, {}

    def preprocess(
        self, inputs: Any, language: str | None = None, prompt: str | None = None, context: str | None = None
    ) -> Iterator[dict[str, Any]]:
        features = self.processor.extract_features(inputs)
        ids = self.processor.prompt_ids(features.shape[-1], prompt, language, context)
        yield {"is_last": True, "features": features, "ids": ids}

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:
        input_features, mask = pad_features(model_inputs["features"])
        rows = model_inputs["ids"]
        tokens = self.model.generate(
            input_features=input_features.to(self.device),
            input_features_mask=mask.to(self.device),
            input_ids=pad_rows(rows, 0, "left").to(self.device),
            attention_mask=pad_rows([[1] * len(row) for row in rows], 0, "left").to(self.device),
            **generate_kwargs,
        )
        return {"is_last": model_inputs["is_last"], "tokens": tokens}

    def postprocess(self, model_outputs: list[dict[str, Any]], **kwargs: Any) -> dict[str, Any]:
        texts = [self.processor.decode(output["tokens"][0], skip_special_tokens=True) for output in model_outputs]
        return {"text": " ".join(text for text in texts if text)}

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> PipelineIterator:
        # As in ChunkPipeline, but items are collated as lists: features of several lengths are padded, with their mask,
        # in `_forward`. The stock collation pads the mel axis, and refuses tokenizers without a padding token.
        dataset = PipelineChunkIterator(inputs, self.preprocess, preprocess_params)
        loader = DataLoader(dataset, num_workers=min(num_workers, 1), batch_size=batch_size, collate_fn=_as_lists)
        outputs = PipelinePackIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)


def _as_lists(items: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [item[key] for item in items] for key in items[0]}
