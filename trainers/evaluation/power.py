"""How small a difference a test set can show."""

from scipy import stats

DEFAULT_POWER = 0.8


def minimum_detectable_difference(error: float, alpha: float = 0.05, power: float = DEFAULT_POWER) -> float:
    """The true difference that a two-sided test at level `alpha` finds with probability `power`.

    error: standard error of the difference. For two systems on different test sets, or as an upper bound before there is a
    second system, that is sqrt(2) times the standard error of one error rate.
    """
    return float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * error)
