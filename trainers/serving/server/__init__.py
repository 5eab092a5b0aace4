"""A transcription server that speaks OpenAI's `/v1/audio/transcriptions`: what `slam-asr serve` starts. Extra `serve`."""
