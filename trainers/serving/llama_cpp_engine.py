"""The engine `llama_cpp`: an export's LLM by llama.cpp, for CPUs. No torch is imported."""

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.engines import ENGINES
from trainers.errors import UserError
from trainers.provenance import cpu_cores
from trainers.serving.exported import ExportedPipeline, Generated, Request, is_done, open_export
from trainers.serving.manifest import read_manifest
from trainers.serving.onnx_audio import OnnxAudio

_STEP = 512  # places by which a context grows
_CALLBACKS: list[Any] = []


def load_pipeline(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    threads: int | None = None,
) -> ExportedPipeline:
    """
    The pipeline of a folder made by `slam-asr export --gguf PRECISION`.

    Args:
        device: `cpu`, or None.
        dtype: the GGUF file's precision; the first of `ENGINES["llama_cpp"].dtypes` that there is, if None. The ONNX part with int8 weights is taken where
            it was exported.
        threads: of llama.cpp and onnxruntime; as many as this process may use, if None.
    Raises:
        UserError: for a folder without these parts, an option that this engine does not have, or a package that is not installed.
    """
    if device not in (None, "cpu"):
        raise UserError(f"--device {device}: the engine llama_cpp computes on the CPU here. Leave it out.")
    if revision is not None:
        raise UserError(f"--revision {revision}: the engine llama_cpp reads a folder. Export that revision.")
    folder = Path(model)
    parts = open_export(folder, "llama_cpp", "--gguf q8_0")
    wanted = ENGINES["llama_cpp"].dtypes if dtype is None else (dtype,)
    precision = next((name for name in wanted if f"gguf-{name}" in parts), None)
    if precision is None:
        there = [name.removeprefix("gguf-") for name in parts if name.startswith("gguf-")]
        raise UserError(
            f"{folder} has no GGUF file of precision {dtype}; it has {', '.join(there)}. Name one of these, or export again."
            if there
            else f"{folder} was exported without --gguf, which the engine llama_cpp needs. Export again with --gguf q8_0."
        )
    count = threads if threads is not None else cpu_cores()
    audio = OnnxAudio(folder, int8="onnx-int8" in parts, threads=count)
    manifest = read_manifest(folder, f"gguf-{precision}")
    llm = LlamaCpp(folder / manifest["parts"][f"gguf-{precision}"]["path"], precision, threads=count)
    return ExportedPipeline(folder, audio, llm)


class LlamaCpp:
    """
    Greedy decoding by llama.cpp: prompt as tokens, audio as embeddings, the requests of one call side by side.

    Args:
        path: a GGUF file; it needs no vocabulary.
        precision: what its weights are called.
        threads: of llama.cpp.
    Raises:
        UserError: when llama-cpp-python is not installed, or llama.cpp cannot read the file.
    """

    name, joins = "llama_cpp", True

    def __init__(self, path: Path, precision: str, threads: int = 1) -> None:
        self.precision, self.threads = precision, threads
        llama = self.library = _library()
        settings = llama.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.model: Any = llama.llama_model_load_from_file(os.fsencode(path), settings)
        if not self.model:
            raise UserError(f"llama.cpp cannot read {path}. Export the model again, with another --gguf precision.")
        weakref.finalize(self, llama.llama_model_free, self.model)
        self.hidden = int(llama.llama_model_n_embd(self.model))
        self.vocabulary = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model)))
        self.context: Any = None
        self._free_context = weakref.finalize(self, _nothing)
        self._size = self._rows = 0
        self._lock = threading.Lock()  # one context, one cache

    def __call__(self, requests: Sequence[Request], ends: Collection[int], log_probs: bool) -> list[Generated]:
        """Of each request what the LLM writes."""
        with self._lock:
            return self._generate(requests, ends, log_probs)

    def score(self, request: Request, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The log-probabilities `(tokens + 1, vocab)` at the request's last place and at each of `tokens`, which follow it."""
        with self._lock:
            self._make_room([Request(request.before, request.audio, [*request.after, *tokens], 1)])
            place = self._read(request, 0)
            found = [_log_softmax(self._logits(-1))]
            for offset, token in enumerate(tokens):
                self._decode([(token, place + offset, 0)], logits=True)
                found.append(_log_softmax(self._logits(-1)))
            return np.stack(found)

    def _generate(self, requests: Sequence[Request], ends: Collection[int], log_probs: bool) -> list[Generated]:
        self._make_room(requests)
        answers = [Generated([], []) for _ in requests]
        places = []
        for row, request in enumerate(requests):
            places.append(self._read(request, row))
            _write(answers[row], request, self._logits(-1), log_probs)
        while True:
            rows = [
                row for row, request in enumerate(requests) if not is_done(answers[row].tokens, request.limit, ends)
            ]
            if not rows:
                return answers
            self._decode([(answers[row].tokens[-1], places[row], row) for row in rows], logits=True)
            for index, row in enumerate(rows):
                _write(answers[row], requests[row], self._logits(index), log_probs)
                places[row] += 1

    def _make_room(self, requests: Sequence[Request]) -> None:
        """An empty cache for these requests; a context that is large enough is used again."""
        llama = self.library
        longest = max(len(each.before) + len(each.audio) + len(each.after) + each.limit for each in requests)
        if self.context is not None and self._size >= longest and self._rows >= len(requests):
            llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
            return
        self._free_context()
        self.context = None
        self._size = max(self._size, -(-longest // _STEP) * _STEP)
        self._rows = max(self._rows, len(requests))
        settings = llama.llama_context_default_params()
        settings.n_ctx = self._size * self._rows
        settings.n_batch = settings.n_ctx
        settings.n_seq_max = self._rows
        settings.n_threads = settings.n_threads_batch = self.threads
        self.context = llama.llama_init_from_model(self.model, settings)
        if not self.context:
            raise UserError(
                f"llama.cpp cannot make a cache for {self._rows} windows of {self._size} places. Lower the batch size."
            )
        self._free_context = weakref.finalize(self, llama.llama_free, self.context)

    def _read(self, request: Request, row: int) -> int:
        """Let the LLM read a request into the cache's `row`; its logits stand at the end. Returns how many places it takes."""
        place = len(request.before)
        if request.before:
            self._decode([(token, index, row) for index, token in enumerate(request.before)])
        self._decode_audio(request.audio, place, row, logits=not request.after)
        place += len(request.audio)
        if request.after:
            self._decode([(token, place + index, row) for index, token in enumerate(request.after)], last=True)
        return place + len(request.after)

    def _decode(self, tokens: Sequence[tuple[int, int, int]], logits: bool = False, last: bool = False) -> None:
        """Read tokens, each with its place and row; their logits are kept where wanted, of all or of the last."""
        batch = self.library.llama_batch_init(len(tokens), 0, 1)
        for index, (token, place, row) in enumerate(tokens):
            batch.token[index] = token
            self._place(batch, index, place, row, logits or (last and index == len(tokens) - 1))
        self._run(batch, len(tokens))

    def _decode_audio(self, audio: NDArray[np.float32], place: int, row: int, logits: bool) -> None:
        data = np.ascontiguousarray(audio, dtype=np.float32)
        if data.shape[1] != self.hidden:
            raise UserError(
                f"The audio part gives embeddings of {data.shape[1]}, the LLM reads {self.hidden}. Export both together."
            )
        batch = self.library.llama_batch_init(len(data), self.hidden, 1)
        ctypes.memmove(batch.embd, data.ctypes.data, data.nbytes)
        for index in range(len(data)):
            self._place(batch, index, place + index, row, logits and index == len(data) - 1)
        self._run(batch, len(data))

    @staticmethod
    def _place(batch: Any, index: int, place: int, row: int, logits: bool) -> None:
        batch.pos[index], batch.n_seq_id[index], batch.logits[index] = place, 1, logits
        batch.seq_id[index][0] = row

    def _run(self, batch: Any, count: int) -> None:
        batch.n_tokens = count
        try:
            failed = self.library.llama_decode(self.context, batch)
        finally:
            self.library.llama_batch_free(batch)
        if failed:
            raise RuntimeError(
                f"llama.cpp could not decode (code {failed}) with {self._rows} rows of {self._size} places."
            )

    def _logits(self, index: int) -> NDArray[np.float32]:
        """Those of the last pass, `(vocab,)`, of its row `index`; good until the next pass."""
        pointer = self.library.llama_get_logits_ith(self.context, index)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary,))


def _write(answer: Generated, request: Request, logits: NDArray[np.float32], log_probs: bool) -> None:
    token = request.next_token(logits)
    answer.tokens.append(token)
    if log_probs:
        answer.log_probs.append(float(_log_softmax(logits)[token]))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum(dtype=np.float64)).astype(np.float32)


@functools.cache
def _library() -> Any:
    """llama.cpp's own interface, started once; it says nothing: its lines are about its insides, and what fails is told here."""
    try:
        import llama_cpp
    except ImportError as error:
        raise UserError(
            'The engine llama_cpp needs llama-cpp-python: `pip install "slam-asr[llama-cpp]"` (it compiles for minutes).'
        ) from error
    _CALLBACKS.append(llama_cpp.llama_log_callback(_nothing))  # kept: the library calls it as long as it is loaded
    llama_cpp.llama_log_set(_CALLBACKS[-1], ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def _nothing(*_: Any) -> None:
    pass
