"""Layer-wise relevance propagation on any network that runs on operations of PyTorch.

The relevance of a value is kept as the value times a *signal*, and autograd passes the signal back: where a rule is
the gradient's own (ReLU, max pooling, reshaping) nothing is to be done, elsewhere an operation gets another way back.
So one pass forward and one back give a map, and operations are seen however they are written: as modules, functions,
methods or operators. zennit, whose rules these are, sees modules only and replays each of them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.checkpoint import CheckpointError

from xaitools.attribution._lrp_rules import Composite
from xaitools.attribution._operations import RULES
from xaitools.attribution._run import OtherSteps, Run, Step
from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Gap, Passes, Plan
from xaitools.attribution.registry import Setting
from xaitools.errors import UnsupportedModelError
from xaitools.models.network import Network, select
from xaitools.models.surgery import twin

_HALF = (torch.float16, torch.bfloat16)


def relevance_plan(setting: Setting, composite: Composite) -> Plan:
    """The relevance of each pixel under the rules of a composite.

    Networks in half precision, in whole or by autocast, are propagated through in float32.

    Raises
    ------
    UnsupportedModelError
        If the network has a layer without a rule; the message names it.
    """
    propagation = _Propagation(setting.network, composite)
    images = dict(enumerate(setting.images))
    known: dict[int, Tensor] = {}  # the output of each image that was passed as it is

    def run(batch: Batch) -> Tensor:
        outputs, leaves = propagation(batch.points)
        with torch.enable_grad():
            scores = select(outputs, batch.target)
            score = scores.sum()
        for point, owner, own in zip(batch.points, batch.owners, scores.detach(), strict=True):
            if owner not in known and torch.equal(point, images.get(owner, point.new_empty(0))):
                known[owner] = own
        if not score.requires_grad:
            raise UnsupportedModelError(
                f"The output of {setting.network.name} does not depend on its input through differentiable operations, "
                "so no relevance comes back. Remove torch.no_grad, detach or argmax from its forward pass."
            )
        try:
            signals = torch.autograd.grad(score, leaves, allow_unused=True)
        except CheckpointError as error:
            raise UnsupportedModelError(
                f"{setting.network.name} computes parts of itself anew for the gradient (torch.utils.checkpoint), "
                "where rules of relevance do not hold; switch checkpointing off (often memory_efficient=False)."
            ) from error
        pairs = zip(leaves, signals, strict=True)
        found = torch.stack([leaf.detach() * signal for leaf, signal in pairs if signal is not None]).sum(0)
        return found.to(batch.points.dtype)

    gap = Gap("relevance_gap", lambda maps: relevance_gap(setting, maps, known))
    return Plan(Passes(setting.name, run), {"image": AT_THE_IMAGE}, gap=gap)


def relevance_gap(setting: Setting, maps: Tensor, known: Mapping[int, Tensor]) -> Tensor:
    """Output minus the sum of each map, (n,), in the unit of the output: the relevance that reached no pixel.

    It is what the rules give to biases, those of merged batch normalisation among them, and to the stabiliser or
    epsilon in their denominators; and what comes to neurons that lack contributions of the sign that a rule asks for:
    with alpha-beta rules those all of whose contributions have one sign, with Deep Taylor those on by their bias alone.
    In networks with attention it is also what softmax gives to its expansion's constant term. Outputs that are `known`
    by the number of the image are not computed again.
    """
    if len(known) < len(maps):
        outputs = setting.network.scores(setting.images, setting.target, setting.batch_size)
    else:
        outputs = torch.stack([known[image] for image in range(len(maps))])
    return outputs.to(maps) - maps.flatten(1).sum(1)


class _Propagation:
    """A network, ready to run under the rules of a composite."""

    def __init__(self, network: Network, composite: Composite):
        self.network = network
        self.composite = composite
        self.model = _in_full_precision(network.folded, network.example)
        try:
            self.steps = self._record(network.example)
        except UnsupportedModelError:
            if isinstance(self.model, GraphModule):  # where layers have no names of their own
                self.model = _in_full_precision(network.plain, network.example)
                self.steps = self._record(network.example)
            else:
                raise

    def __call__(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The outputs, and the leaves whose values times gradients add up to the relevance of `inputs`."""
        try:
            _, outputs, leaves = self._run(inputs, self.steps)
        except OtherSteps:
            _, outputs, leaves = self._run(inputs, self._record(inputs, compare=False))
        return outputs, leaves

    def _record(self, inputs: Tensor, compare: bool = True) -> list[Step]:
        """What is to be known of a pass before it is made."""
        run, outputs, _ = self._run(inputs, None)
        if compare and not self._as_expected(outputs, lenient=run.autocast):
            raise UnsupportedModelError(
                f"Under the rules of relevance, {self.network.name} returns other outputs, so its relevance would be "
                "wrong. Look for randomness, or for a state that changes, in its forward pass."
            )
        return run.steps

    def _run(self, inputs: Tensor, steps: list[Step] | None) -> tuple[Run, Tensor, list[Tensor]]:
        if inputs.dtype in _HALF:
            inputs = inputs.float()
        bounds = self.composite.first.images if self.composite.first else ()
        images = [inputs, *(torch.as_tensor(bound).to(inputs).expand_as(inputs) for bound in bounds)]
        leaves = [image.detach().clone().requires_grad_() for image in images]
        run = Run(RULES, self.composite, self.model, self.network.name, steps)
        with torch.enable_grad():
            image, *starts = (leaf.clone() for leaf in leaves)
            run.start(image, starts)
            with run:
                outputs = self.model(image)
        run.finish(outputs)
        return run, outputs, leaves

    def _as_expected(self, outputs: Tensor, lenient: bool) -> bool:
        """Whether these are the network's outputs up to rounding, in half precision if that is the network's."""
        expected = self.network.expected.to(outputs)
        tolerance = 5e-2 if lenient or self.network.expected.dtype in _HALF else 1e-3
        return torch.allclose(
            outputs, expected, rtol=tolerance, atol=tolerance / 10 * expected.abs().max().item()
        )


def _in_full_precision(model: nn.Module, example: Tensor) -> nn.Module:
    return twin(model).float() if example.dtype in _HALF else model
