"""The former place of `trainers.inference.subtitles`."""

import warnings

from trainers.inference.subtitles import Cue, clock, cues, to_srt, to_vtt

__all__ = ["Cue", "clock", "cues", "to_srt", "to_vtt"]

warnings.warn("trainers.subtitles is now trainers.inference.subtitles.", DeprecationWarning, stacklevel=2)
