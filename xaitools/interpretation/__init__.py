"""What a network is like inside: its kernels, features and favourite images, and the examples that it learned from."""

from xaitools.interpretation.activation_maximization import Maximized, activation_maximization
from xaitools.interpretation.features import features
from xaitools.interpretation.influence import (
    influence_agreement,
    influence_table,
    leave_one_out,
    training_influence,
)
from xaitools.interpretation.kernels import layer_kernels
from xaitools.interpretation.neighbours import nearest_neighbours
from xaitools.interpretation.prototypes import Prototypes, mmd_critic, prototypes
from xaitools.interpretation.surrogate import Surrogate, fit_surrogate, region_densities, surrogate_tree

__all__ = [
    "Maximized",
    "Prototypes",
    "Surrogate",
    "activation_maximization",
    "features",
    "fit_surrogate",
    "influence_agreement",
    "influence_table",
    "layer_kernels",
    "leave_one_out",
    "mmd_critic",
    "nearest_neighbours",
    "prototypes",
    "region_densities",
    "surrogate_tree",
    "training_influence",
]
