"""Benchmarks of the project; their results stand beside their scripts."""
