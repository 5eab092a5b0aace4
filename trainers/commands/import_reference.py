"""`slam-asr import-reference`: a checkpoint of the paper's code, or of SLAM-LLM, in this project's format."""

import argparse
from pathlib import Path
from typing import Any

HELP = "Convert a checkpoint (.pt) of the paper's code or of SLAM-LLM."

_EPILOG = """
The .pt is read without running code from it. It does not say which base models, how many encoder layers or which
LoRA alpha it was trained with: give them as they were.

example:
  slam-asr import-reference outputs/checkpoint_best_wer.pt --audio-model openai/whisper-small \\
      --text-model Qwen/Qwen2.5-3B --prune-encoder-layers 2 --lora-rank 8 --output-dir imported
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("checkpoint", type=Path, metavar="CKPT.pt", help="the file that the reference code saved")
    parser.add_argument("--audio-model", required=True, metavar="MODEL", help="Whisper model, a Hub name or folder")
    parser.add_argument("--text-model", required=True, metavar="MODEL", help="LLM, a Hub name or folder")
    parser.add_argument("--audio-revision", metavar="REV", help="branch, tag or commit of the audio model")
    parser.add_argument("--text-revision", metavar="REV", help="branch, tag or commit of the LLM")
    parser.add_argument(
        "--prune-encoder-layers",
        type=_layers,
        default=0,
        metavar="N",
        help="how many of the last encoder layers were dropped, or a list such as 3,5,-1 (default: 0)",
    )
    parser.add_argument("--lora-rank", type=int, metavar="R", help="rank of the LoRA weights; checked if given")
    parser.add_argument("--lora-alpha", type=float, metavar="A", help="LoRA's alpha (default: twice the rank)")
    parser.add_argument(
        "--lora-dropout", type=float, default=0.1, metavar="P", help="for further training (default: 0.1)"
    )
    parser.add_argument("--prompt", help="the prompt of the training, when it was another one (SLAM-LLM's is)")
    parser.add_argument(
        "--form", choices=("adapter", "standalone"), default="adapter", help="what to write (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="(default: %(default)s)"
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="where the checkpoint goes")


def run(args: argparse.Namespace) -> int:
    """Convert and say what came out."""
    from trainers.commands.reference_checkpoint import import_reference

    options: dict[str, Any] = {"audio_revision": args.audio_revision, "text_revision": args.text_revision}
    if args.prompt is not None:
        options["prompt"] = args.prompt
    report = import_reference(
        args.checkpoint,
        args.audio_model,
        args.text_model,
        args.output_dir,
        prune_encoder_layers=args.prune_encoder_layers,
        lora_rank=args.lora_rank,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        checkpoint_form=args.form,
        dtype=args.dtype,
        **options,
    )
    print(
        f"Wrote {args.output_dir}: encoder {report['encoder']:,}, projector {report['projector']:,}, "
        f"LoRA {report['lora']:,}, LLM {report['language_model']:,} parameters. It was reloaded and computes the same."
    )
    return 0


def _layers(text: str) -> int | list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a list such as 3,5,-1") from None
    return values if "," in text else values[0]
