"""Attribution methods: which pixels speak for the network's answer."""

from collections.abc import Callable

from torch import Tensor

from xaitools.attribution.attribute import Maps, attribute
from xaitools.attribution.deconvolution import deconvolution
from xaitools.attribution.deep_taylor import deep_taylor
from xaitools.attribution.expected_gradients import expected_gradients
from xaitools.attribution.gradient import gradient
from xaitools.attribution.guided_backprop import guided_backprop
from xaitools.attribution.input_x_gradient import input_x_gradient
from xaitools.attribution.integrated_gradients import integrated_gradients
from xaitools.attribution.lrp import lrp
from xaitools.attribution.names import MethodName, combine, parse
from xaitools.attribution.occlusion import occlusion
from xaitools.attribution.xrai import Segments, segment, xrai

METHODS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        gradient,
        integrated_gradients,
        expected_gradients,
        input_x_gradient,
        deconvolution,
        guided_backprop,
        lrp,
        deep_taylor,
        occlusion,
    )
}

__all__ = [
    "METHODS",
    "Maps",
    "MethodName",
    "Segments",
    "attribute",
    "combine",
    "deconvolution",
    "deep_taylor",
    "expected_gradients",
    "gradient",
    "guided_backprop",
    "input_x_gradient",
    "integrated_gradients",
    "lrp",
    "occlusion",
    "parse",
    "segment",
    "xrai",
]
