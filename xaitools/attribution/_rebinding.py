"""Values that a network takes beside its images, exchanged without preparing it anew."""

from torch import Tensor, nn

from xaitools.models.network import Network
from xaitools.models.surgery import outputs_of


def rebind(network: Network, **values: Tensor) -> None:
    """Give a prepared network other values for the buffers of these names, and tell it what it returns now."""
    fill(network, **values)
    network.expected = outputs_of(network.plain, network.example)


def fill(network: Network, **values: Tensor) -> None:
    """Exchange the buffers of these names in every form of the network; what it expects stays."""
    for form in vars(network).values():
        for module in form.modules() if isinstance(form, nn.Module) else ():
            for name in values.keys() & module._buffers.keys():
                old = module._buffers[name]
                assert old is not None
                module._buffers[name] = values[name].to(old)


def named_after(model: nn.Module, kind: type[nn.Module]) -> type[nn.Module]:
    """The class `kind` of modules around the model, under the name of its class, by which messages speak of it."""
    return type(type(model).__name__, (kind,), {"__module__": kind.__module__})
