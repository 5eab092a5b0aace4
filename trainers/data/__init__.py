"""Speech data: from a folder, a manifest, Common Voice or the Hub to batches."""
