"""Saving a model in its two checkpoint forms, with the code that loads them."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from .adapters_slam_asr import merged_state, save_lora
from .configuration_slam_asr import CHECKPOINT_FORMS, SlamAsrConfig
from .lora_slam_asr import LORA_FIELDS, LORA_FOLDERS, LoraMixin, without_other_adapters


class SavingMixin(LoraMixin):
    """For [`SlamAsrForConditionalGeneration`]; stands before `PreTrainedModel`, whose `save_pretrained` writes the files."""

    config: SlamAsrConfig
    state_dict: Any  # of `nn.Module`
    resized_vocabulary: bool = False  # the LLM's embeddings are no longer those of its repository

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        *,
        checkpoint_form: str = "standalone",
        merge_lora: bool = False,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        Save weights as safetensors, the configuration, the generation configuration and the code that loads them.

        Args:
            checkpoint_form: `"standalone"`: every weight. `"adapter"`: projector and LoRA; the base parts are fetched from
                where they came from (`config.audio_model_id` and so on) when it is loaded.
            merge_lora: in the standalone form, add LoRA into the LLM's weights: loading then needs no PEFT. This model
                itself does not change.
            kwargs: those of `PreTrainedModel.save_pretrained`, such as `max_shard_size`.
        Raises:
            ValueError: for a form that this model cannot be saved in.
        """
        self._check_saving(checkpoint_form, merge_lora, push_to_hub)
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"{folder} is a file; a checkpoint is a folder. Name another place.")
        folder.mkdir(parents=True, exist_ok=True)
        before = self.config.checkpoint_form, self.config.lora, self.config.encoder_lora
        earlier = {file: _version(file) for file in folder.glob("model*.safetensors*")}
        state = self._state_to_save(state_dict, checkpoint_form, merge_lora)
        self.config.checkpoint_form = checkpoint_form
        if merge_lora:
            self.config.lora = self.config.encoder_lora = None
        try:
            super().save_pretrained(folder, is_main_process=is_main_process, state_dict=state, **kwargs)  # type: ignore[misc]
        finally:
            self.config.checkpoint_form, self.config.lora, self.config.encoder_lora = before
        if is_main_process:
            for file, version in earlier.items():
                if file.exists() and _version(file) == version:
                    file.unlink()  # of an earlier save in one file, or in shards: loading would prefer it
            self._save_lora_folders(folder, checkpoint_form)
            for source in Path(__file__).parent.glob("*_slam_asr.py"):
                if source.resolve() != (folder / source.name).resolve():
                    shutil.copyfile(source, folder / source.name)

    def _check_saving(self, checkpoint_form: str, merge_lora: bool, push_to_hub: bool) -> None:
        if checkpoint_form not in CHECKPOINT_FORMS:
            raise ValueError(f"checkpoint_form={checkpoint_form!r} is unknown. Choose 'standalone' or 'adapter'.")
        if push_to_hub:
            raise ValueError(
                "save_pretrained does not upload. Call `push_to_hub(repo_id)` or `slam-asr push DIR REPO_ID`."
            )
        if checkpoint_form == "adapter" and merge_lora:
            raise ValueError(
                "The adapter form keeps LoRA apart. merge_lora=True goes with checkpoint_form='standalone'."
            )
        if checkpoint_form == "adapter" and not (self.config.audio_model_id and self.config.text_model_id):
            raise ValueError(
                "The adapter form needs audio_model_id and text_model_id in the configuration. Save the standalone form."
            )
        if checkpoint_form == "adapter" and self.resized_vocabulary:
            raise ValueError(
                "The adapter form holds no embeddings, and resize_token_embeddings changed those of the LLM. Save the "
                "standalone form."
            )
        if checkpoint_form == "standalone" and self.has_quantized_llm():
            raise ValueError(
                "The LLM is quantized; its weights cannot be saved in full. Save with checkpoint_form='adapter': the LLM is "
                "then fetched from its own repository, and may be quantized again."
            )
        if self.active_adapter != "default":
            raise ValueError(
                f"The adapter {self.active_adapter!r} is active. It has its own checkpoint: `set_adapter('default')` first."
            )

    def _state_to_save(
        self, state_dict: dict[str, torch.Tensor] | None, checkpoint_form: str, merge_lora: bool
    ) -> dict[str, torch.Tensor]:
        state = self.state_dict() if state_dict is None else dict(state_dict)
        if checkpoint_form == "adapter":
            return {name: tensor for name, tensor in state.items() if name.startswith("projector.")}
        for part, field in LORA_FIELDS.items():
            model, own = getattr(self, part), getattr(self.config, field) is not None
            if merge_lora and own:
                state = merged_state(model, state, f"{part}.")
            else:
                state = without_other_adapters(model, f"{part}.", state, keep=own)
        return dict(sorted(state.items()))  # shards hold the same tensors however the model came about

    def _save_lora_folders(self, folder: Path, checkpoint_form: str) -> None:
        config = self.config
        bases = {
            "language_model": (config.lora, config.text_model_id, config.text_model_revision),
            "audio_encoder": (config.encoder_lora, config.audio_model_id, config.audio_model_revision),
        }
        for part, name in LORA_FOLDERS.items():
            shutil.rmtree(folder / name, ignore_errors=True)
            settings, base, revision = bases[part]
            if checkpoint_form == "adapter" and settings is not None:
                save_lora(getattr(self, part), folder / name, base, revision)


def _version(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns
