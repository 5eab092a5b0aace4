"""The names that sound files have."""

# What soundfile decodes.
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
