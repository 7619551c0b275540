"""The fast proxy: shared layers that imitate single-task teachers on cached features.

Candidates are trained side by side, stacked into one network.
"""

from trainers.proxy.features import (
    FeatureCache,
    TaskFeatures,
    build_cache,
    compute_features,
    feature_bytes,
    features_digest,
    load_features,
    save_features,
)
from trainers.proxy.proxy import (
    SCORING_VERSION,
    DivergedError,
    Evaluation,
    Proxy,
    ProxyConfig,
    distill,
)

__all__ = [
    "SCORING_VERSION",
    "DivergedError",
    "Evaluation",
    "FeatureCache",
    "Proxy",
    "ProxyConfig",
    "TaskFeatures",
    "build_cache",
    "compute_features",
    "distill",
    "feature_bytes",
    "features_digest",
    "load_features",
    "save_features",
]
