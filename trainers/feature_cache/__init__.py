"""Encoder states of a data set, computed once for every depth that is needed and read from disk afterwards."""

from trainers.feature_cache.build import build_cache
from trainers.feature_cache.depths import depth_name, states_at
from trainers.feature_cache.store import FeatureCache, FeatureRows

__all__ = ["FeatureCache", "FeatureRows", "build_cache", "depth_name", "states_at"]
