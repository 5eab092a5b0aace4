"""Proof that a saved model works for others: a fresh process loads it with transformers alone and transcribes a file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

from trainers.errors import UserError

# What a user writes; the process never imports this project, so the code in the model's folder is what runs.
PROGRAM = """\
import json, sys
from transformers import AutoModel, AutoProcessor, pipeline

folder, recording = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
tokens = model.generate(**processor.apply_transcription_request(recording))
asr = pipeline("automatic-speech-recognition", model=folder, trust_remote_code=True)
assert "modeling_slam_asr" not in sys.modules
print(json.dumps({
    "AutoModel": processor.batch_decode(tokens, skip_special_tokens=True)[0],
    "pipeline": asr(recording)["text"],
    "class": type(model).__module__ + "." + type(model).__name__,
}))
"""


# Transcripts, and where the model's class came from.
Proof = TypedDict("Proof", {"AutoModel": str, "pipeline": str, "class": str})


def prove(model: Path, recording: Path) -> Proof:
    """
    Transcribe `recording` (wav) with the model in folder `model`, by AutoModel and by pipeline, in a fresh process.

    Raises:
        UserError: when the process fails or the two transcripts differ.
    """
    command = [sys.executable, "-c", PROGRAM, str(model.resolve()), str(recording.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=model.resolve().anchor, timeout=600)
    if done.returncode != 0:
        raise UserError(f"A fresh process could not use the model in {model}: {done.stderr.strip()[-1500:]}")
    said: Proof = json.loads(done.stdout.strip().splitlines()[-1])
    if said["AutoModel"] != said["pipeline"]:
        raise UserError(
            f"AutoModel and pipeline disagree on {recording}: {said['AutoModel']!r} and {said['pipeline']!r}."
        )
    return said
