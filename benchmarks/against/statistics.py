"""Statistics of features as other implementations have them."""

from __future__ import annotations

import dataclasses

from phenaki_jax.evaluation.frechet import FeatureStatistics


def biased(statistics: FeatureStatistics) -> FeatureStatistics:
    """With the covariance divided by the number of rows, as cd-fvd has it, and not by one less."""
    share = (statistics.count - 1) / statistics.count
    return dataclasses.replace(statistics, covariance=statistics.covariance * share)
