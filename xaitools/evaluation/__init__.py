"""Is a map right: against a mask, and against the model it explains?"""

from xaitools.evaluation.bootstrap import Interval, mean_interval, paired_difference
from xaitools.evaluation.localization import localization

__all__ = ["Interval", "localization", "mean_interval", "paired_difference"]
