"""The embedded default: a synthetic corpus in Danish, Dutch and English, and the two small base models trained on it."""
