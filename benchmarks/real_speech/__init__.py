"""SLAM-ASR on real Dutch speech."""
