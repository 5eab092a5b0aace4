"""The names that sound files have."""

# What counts as a recording in a folder. What can be decoded is soundfile's affair (modeling_slam_asr/audio_slam_asr.py).
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
