"""Extremal perturbation (Fong, Patrick and Vedaldi 2019): the part of a given size that matters most."""

from collections.abc import Mapping

from xaitools.attribution._stream import Plan
from xaitools.attribution.integrated_gradients import Baseline
from xaitools.attribution.mask_settings import MaskSettings
from xaitools.attribution.meaningful_perturbation import explainable, masks_as_maps
from xaitools.attribution.registry import Option, Setting, method
from xaitools.errors import MethodError


def _read(option: str) -> dict[str, float]:
    """The area in a name's brackets."""
    try:
        return {"area": float(option)}
    except ValueError as error:
        raise MethodError(
            f"extremal_perturbation[{option}]: expected the share of the image to hide in the brackets, as in "
            "extremal_perturbation[0.05]"
        ) from error


@method(
    "optimisation",
    label=lambda option: f"EP {option}",
    idea="which part of this size, when it is hidden, makes the answer fall the most?",
    equation=r"\min_m \; f(m \odot x + (1 - m) \odot \tilde{x}), \quad \tfrac{1}{n} \sum_i (1 - m_i) = a",
    use="Where masks are to be compared at one size: which part of this area matters most?",
    failures=(
        "The area has to be said: it always fills it, though less would do.",
        "Hundreds of passes an image; and as of any optimisation, nobody knows that this mask is the "
        "best one.",
        "What replaces hidden parts decides, as for meaningful perturbation.",
    ),
    reference="Fong, Patrick and Vedaldi 2019, arXiv:1910.08485, equations 2 and 5.",
    option=Option("0.05", "share of the image to hide", _read),
    check=explainable,
)
def extremal_perturbation(
    setting: Setting,
    *,
    area: float = 0.05,
    deletion: str = "blur",
    baselines: Mapping[str, Baseline] | None = None,
    sigma: float | None = None,
    l2: float = 0.0,
    coarse: int = 8,
    iterations: int = 300,
    learning_rate: float = 0.05,
    score: str | None = None,
) -> Plan:
    """How much of each voxel a mask of a given area hides that was optimised to make the target's score small.

    The authors' deletion game. Their masks are smoothed by a maximum under a wide kernel and follow gradient descent;
    here a coarse mask is enlarged by straight lines and follows Adam, as the other optimised masks do.

    Parameters
    ----------
    area
        Share of the cells to hide, between 0 and 1.
    deletion, baselines, sigma, iterations, score
        As in `meaningful_perturbation`.
    l2, coarse, learning_rate
        As in `xaitools.attribution.MaskSettings`.

    Returns
    -------
    Tensor
        1 - mask, from 0 (kept) to 1 (hidden). The same in each channel.

    Raises
    ------
    MethodError, ParameterError
        If the deletion, the score or a setting is not known or out of its range.
    ShapeError, DataError
        If a baseline does not fit the images, or is not finite.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network is not differentiable.
    """
    settings = MaskSettings(l2=l2, coarse=coarse, steps=iterations, learning_rate=learning_rate, area=area)
    return masks_as_maps(setting, settings, deletion, baselines, sigma, score)
