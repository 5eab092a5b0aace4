"""Names that programs of users import stay where they were, and say where they are now."""

import subprocess
import sys

from trainers.inference import evaluate, torch_engine


def test_subtitles_can_be_imported_from_their_former_place() -> None:
    code = "from trainers.subtitles import Cue, clock, cues, to_srt, to_vtt; print(clock(1.5, ','))"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "00:00:01,500", done.stderr
    assert "trainers.subtitles is now trainers.inference.subtitles" in done.stderr


def test_the_torch_engine_can_be_imported_from_its_former_place() -> None:
    assert evaluate.load_pipeline is torch_engine.load_pipeline and evaluate.pipeline_of is torch_engine.pipeline_of
