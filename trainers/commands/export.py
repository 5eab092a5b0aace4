"""`slam-asr export`: a model in forms that other engines read."""

import argparse
from pathlib import Path

HELP = """\
Write a model in forms that other engines read: nothing of this project is needed to load them.

The LLM, with its LoRA merged, becomes a plain Hugging Face folder and, if wanted, a GGUF file for llama.cpp; encoder, projector
and CTC head become ONNX. Every part is loaded again and compared with the torch model on built-in sounds. A part that differs
beyond its bounds ends the export, and DIR is then not written: it is there whole or not at all."""

EPILOG = """\
examples:
  slam-asr export quickstart/model exported                     # the LLM's folder and the ONNX file
  slam-asr export my/model exported --int8 --gguf q8_0          # for CPUs: small files, quick decoding
  slam-asr export my/model exported --gguf q8_0 --no-llm-weights  # llama.cpp alone is to read the LLM
  slam-asr export my/model exported --gguf q4_k_m --sample talk.wav  # what is said there must stay the same
  slam-asr export my/model exported --dtype bfloat16            # for --engine vllm
  slam-asr export my/model exported --hf-only                   # the LLM alone, for other programs; needs no extra

DIR then holds:
  llm/            the LLM: AutoModelForCausalLM and AutoTokenizer load it without remote code
  audio/          audio.onnx, audio.int8.onnx, mel_filters.npy: from a spectrogram to the LLM's input embeddings
  llm.q8_0.gguf   the LLM for llama.cpp, without a vocabulary: token ids come from the tokenizer in llm/
  manifest.json   prompt, spectrogram, length and generation settings; the figures of each check; SHA-256 of all files

Needs `pip install "slam-asr[export]"`, but for --hf-only. Memory: about three times the model's size in float32."""


def configure(parser: argparse.ArgumentParser) -> None:
    from trainers.gguf_precisions import GGUF_PRECISIONS

    by_llama_cpp = ", ".join(name for name, precision in GGUF_PRECISIONS.items() if precision.needs_llama_cpp)
    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL", help="a model folder or Hub name")
    parser.add_argument("folder", metavar="DIR", type=Path, help="where the export goes: a new or empty folder")
    parser.add_argument("--hf-only", action="store_true", help="the LLM's Hugging Face folder only")
    parser.add_argument("--int8", action="store_true", help="the ONNX file with 8-bit weights too")
    parser.add_argument(
        "--gguf",
        action="append",
        default=[],
        metavar="PRECISION",
        help=f"the LLM as GGUF: {', '.join(GGUF_PRECISIONS)} ({by_llama_cpp} needs llama-cpp-python); may be given several times",
    )
    parser.add_argument("--no-llm-weights", action="store_true", help="leave the weights out of llm/")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the weights in llm/ (default: as saved); GGUF files are made from these weights",
    )
    parser.add_argument(
        "--sample",
        action="append",
        default=[],
        metavar="FILE",
        help="a recording whose transcripts by all parts must be the model's own; may be given several times",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hub model")


def run(args: argparse.Namespace) -> int:
    """Export, and tell each part's figures."""
    import torch
    from transformers import AutoConfig

    from modeling_slam_asr.audio_slam_asr import load_audio
    from trainers.errors import UserError
    from trainers.serving.export import Wanted, check_wanted, export_model

    if args.no_llm_weights and not args.gguf:
        raise UserError("--no-llm-weights without --gguf leaves no LLM at all. Add --gguf q8_0, or leave it out.")
    wanted = Wanted(
        onnx=not args.hf_only, int8=args.int8, gguf=list(dict.fromkeys(args.gguf)), llm_weights=not args.no_llm_weights
    )
    if args.hf_only and (args.gguf or args.no_llm_weights):
        raise UserError("--hf-only is the LLM's Hugging Face folder alone. Leave --gguf and --no-llm-weights out.")
    check_wanted(wanted)

    if args.sample and args.hf_only:
        raise UserError("--sample needs the ONNX part, which --hf-only leaves out. Leave one of the two out.")
    samples = [load_audio(path) for path in args.sample]

    from trainers.inference.torch_engine import load_pipeline

    print(f"loading {args.model} in float32", flush=True)
    pipe = load_pipeline(args.model, device="cpu", dtype="float32", revision=args.revision, merge_lora=False)
    saved = AutoConfig.from_pretrained(args.model, revision=args.revision).dtype or torch.float32
    dtype = getattr(torch, args.dtype) if args.dtype else saved
    content = export_model(
        pipe.model, pipe.processor, args.folder, wanted, name=str(args.model), llm_dtype=dtype, samples=samples,
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    size = sum(record["bytes"] for record in content["files"].values())
    print(
        f"Wrote {args.folder}: {len(content['files'])} files, {size / 1e6:.1f} MB, parts {', '.join(content['parts'])}."
    )
    return 0
