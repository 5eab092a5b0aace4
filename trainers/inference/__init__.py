"""Finished models at work: loading, transcribing files and data sets, scoring, subtitles."""
