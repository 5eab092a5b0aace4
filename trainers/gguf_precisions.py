"""The precisions in which an LLM is written for llama.cpp: what makes each, and how near to the torch model it must be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GgufPrecision:
    """
    kl, top1: bounds of the file's weights, as `trainers.serving.agreement.llm_agreement` measures them.
    llama_cpp_top1: the same of llama.cpp's own run, which of quantised weights rounds the activations to 8 bits too.
    sample_wer: bound of the word error rate of its transcripts against the model's own.
    needs_llama_cpp: whether llama.cpp's own quantiser makes it, and not the package `gguf`.
    """

    kl: float
    top1: float
    llama_cpp_top1: float
    sample_wer: float
    needs_llama_cpp: bool = False


GGUF_PRECISIONS = {
    "q8_0": GgufPrecision(kl=2e-2, top1=0.90, llama_cpp_top1=0.80, sample_wer=0.05),
    "f16": GgufPrecision(kl=2e-3, top1=0.95, llama_cpp_top1=0.95, sample_wer=0.02),
    "q4_k_m": GgufPrecision(kl=0.5, top1=0.70, llama_cpp_top1=0.60, sample_wer=0.25, needs_llama_cpp=True),
}
"""By llama.cpp's own name, the ones to prefer first."""
