"""Encoder states of a data set, computed once for every depth that is needed and read from disk afterwards."""

from trainers.feature_cache.build import CacheEstimate, build_cache, estimate_cache
from trainers.feature_cache.depths import Depth, depth_name, kept_blocks, states_at
from trainers.feature_cache.keys import cache_key, encoder_fingerprint
from trainers.feature_cache.store import FeatureCache, FeatureRows

__all__ = [
    "CacheEstimate",
    "Depth",
    "FeatureCache",
    "FeatureRows",
    "build_cache",
    "cache_key",
    "depth_name",
    "encoder_fingerprint",
    "estimate_cache",
    "kept_blocks",
    "states_at",
]
