"""Every private name of a library that this code uses or overrides, each with its reason. There are no others."""

import ast
from collections.abc import Iterator
from pathlib import Path

from torch import nn
from transformers import (
    AutomaticSpeechRecognitionPipeline,
    PreTrainedModel,
    ProcessorMixin,
    Seq2SeqTrainer,
)
from transformers.generation import GenerationMixin

REPOSITORY = Path(__file__).parent.parent
PACKAGES = ("slam_asr", "modeling_slam_asr", "trainers", "hub_upload", "benchmarks")
ALLOWED = {
    # The ways in which transformers has a class say or do something of its own; its documentation and its own models use them.
    "_can_record_outputs": "which modules `output_hidden_states` and `output_attentions` record",
    "_init_weights": "how new weights are drawn",
    "_no_split_modules": "layers that FSDP and a device_map keep whole",
    "_supports_sdpa": "attention implementations that the class takes",
    "_supports_flash_attn": "attention implementations that the class takes",
    "_supports_flex_attn": "attention implementations that the class takes",
    "_supports_attention_backend": "attention implementations that the class takes",
    "_skip_keys_device_placement": "the cache stays where it is under a device_map",
    "_load_processor": "that the pipeline wants a processor",
    "_sanitize_parameters": "a pipeline's parameters: the method is abstract there",
    "_forward": "a pipeline's model call: the method is abstract there",
    "_from_config": "an empty model on the meta device in a dtype: the public `from_config` belongs to the auto classes",
    "_prepare_inputs": "Trainer: inputs to the device, in every overridden `prediction_step` of transformers",
    "_save_checkpoint": "Trainer: a checkpoint is marked as whole after all its files; no callback runs at that time",
    "_load_from_checkpoint": "Trainer: only what is trained is stored, so only that is read",
    "_load_optimizer_and_scheduler": "Trainer: a resumed run takes the learning rates that it is given now",
    # No public way exists.
    "_gradient_checkpointing_func": "a frozen block's repeated pass has to run without dropout; asked of the block alone",
    "_attn_implementation": "which attention an LLM runs on: it can be set publicly, but not read",
    "_is_stateful": "whether an LLM's cache has a recurrent state, which cannot be taken back: transformers' own drafts ask it too",
    "_replicate_for_data_parallel": "torch's DataParallel asks each part for a copy: the one place where it can be refused in words",
    "_hf_hook": "Accelerate puts its own `forward` where this is; there is no public question for it",
    # Python's own.
    "_exit": "os._exit ends a forked child, or an app whose parent is gone, without the parent's exit handlers",
}
LIBRARY = {
    name
    for kind in (nn.Module, PreTrainedModel, GenerationMixin, ProcessorMixin, Seq2SeqTrainer, AutomaticSpeechRecognitionPipeline)
    for name in dir(kind)
}  # fmt: skip


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_private_name_of_a_library_is_used_without_a_reason() -> None:
    trees = [
        ast.parse(file.read_text("utf-8")) for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py")
    ]
    own = {name for tree in trees for name in own_names(tree)}
    used = {
        name for tree in trees for name in used_names(tree) if is_private(name) and (name in LIBRARY or name not in own)
    }
    assert used - ALLOWED.keys() == set(), "use a public way, or give the reason in ALLOWED"
    assert ALLOWED.keys() - used == set(), "nothing uses these any more"


def own_names(tree: ast.Module) -> Iterator[str]:
    """Functions, classes, arguments and variables, and attributes that an object gives itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def used_names(tree: ast.Module) -> Iterator[str]:
    """Names read or set on objects, by `getattr` too, imported, or given by a class to its base."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
            yield from (node.module or "").split(".")
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
            if isinstance(node.args[1], ast.Constant):
                yield str(node.args[1].value)
        elif isinstance(node, ast.ClassDef) and node.bases:
            yield from (item.name for item in node.body if isinstance(item, ast.FunctionDef))
            yield from (target.id for item in node.body if isinstance(item, ast.Assign) for target in item.targets)
            yield from (item.target.id for item in node.body if isinstance(item, ast.AnnAssign))
