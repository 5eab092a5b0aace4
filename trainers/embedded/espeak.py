"""eSpeak NG's own samples, from the library that the package espeakng-loader ships."""

import ctypes
import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.errors import UserError

_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_SYNCHRONOUS = 2
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def synthesize(
    text: str, voice: str, words_per_minute: int = 175, pitch: int = 50, pitch_range: int = 50
) -> tuple[NDArray[np.int16], int]:
    """
    eSpeak NG's own samples, and their rate in Hz.

    eSpeak keeps state between utterances (its flutter goes on where the last one ended). So each is spoken by a child
    process that starts from the state after initialisation: the samples depend on the arguments alone.
    """
    _, rate = espeak()
    speak = _speak_in_fork if hasattr(os, "fork") else _speak_in_new_process
    data = speak(text, voice, words_per_minute, pitch, pitch_range)
    if not any(data):
        raise UserError(
            f"eSpeak NG could not speak {text!r} in the voice {voice!r}. Is it one of its languages? If so, remove the text, or "
            "reinstall espeakng-loader."
        )
    return np.frombuffer(data, dtype=np.int16), rate


def _speak_in_fork(text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> bytes:
    """The samples as bytes; none after a failure."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            samples = _speak_here(text, voice, words_per_minute, pitch, pitch_range)
            with os.fdopen(writer, "wb") as stream:
                stream.write(samples)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    return data if status == 0 else b""


def _speak_in_new_process(*arguments: str | int) -> bytes:
    """The same where processes cannot be forked, as on Windows: slower, since each starts Python."""
    command = [sys.executable, "-m", "trainers.embedded.espeak"]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    done = subprocess.run(command, input=json.dumps(arguments).encode(), capture_output=True, check=False, env=found)
    return done.stdout if done.returncode == 0 else b""


@functools.cache
def espeak() -> tuple[ctypes.CDLL, int]:
    """The library, initialised but not yet used, and its sampling rate."""
    try:
        loader = importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise UserError(
            "The package espeakng-loader, which speaks the embedded sentences and text files, is not installed. "
            'Install it with: pip install "slam-asr[quickstart]"'
        ) from error
    library = ctypes.CDLL(loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(loader.get_data_path()), 0)
    if rate <= 0:
        raise UserError(
            f"eSpeak NG did not start with the data in {loader.get_data_path()}. Reinstall espeakng-loader."
        )
    return library, rate


def _speak_here(text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> bytes:
    """The samples as bytes (int16). Changes eSpeak's state: only for the child process of `synthesize`."""
    library, _ = espeak()
    chunks: list[bytes] = []

    def keep(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int | None) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _CALLBACK(keep)
    library.espeak_SetSynthCallback(callback)
    ask_espeak(library, text, voice, words_per_minute, pitch, pitch_range)
    return b"".join(chunks)


def ask_espeak(
    library: ctypes.CDLL, text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int
) -> None:
    """Have the library speak into the callback that was set."""
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise UserError(f"eSpeak NG has no voice {voice!r}.")
    for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
        library.espeak_SetParameter(parameter, value, 0)
    encoded = text.encode("utf-8")
    library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _CHARS_UTF8, None, None)


if __name__ == "__main__":
    sys.stdout.buffer.write(_speak_here(*json.loads(sys.stdin.buffer.read())))
