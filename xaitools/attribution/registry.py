"""The methods there are: each registers itself where it is defined.

A method is a function that makes a plan, decorated with `method`::

    @method("path", label="BP", idea="how would the answer change if this pixel became brighter?", reference="...", ...)
    def gradient(setting: Setting) -> Plan:
        \"\"\"Gradient of the target output with respect to each pixel. ...\"\"\"
        return Plan(setting.gradients, {"gradient": AT_THE_IMAGE})

The decorator makes ``gradient(model, images, target=None, *, batch_size, seed, progress)`` of it and puts it into
`METHODS`, which the grammar of names, `attribute`, the viewers, the documentation and the tests all ask. So a new
method is a file here and its test, and nothing else.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from xaitools.attribution._stream import Passes, Plan, Stream, grouped
from xaitools.checks import check_counts, checked_images, checked_options
from xaitools.errors import MethodError, XaitoolsError
from xaitools.models.network import Network
from xaitools.models.outputs import Output
from xaitools.progress import Progress, Teller

Kind = Literal["path", "rule", "layer", "perturbation", "optimisation"]

KINDS: dict[str, str] = {
    "path": "adds up gradients along a path of images",
    "rule": "passes the output back through the network by a rule of its own",
    "layer": "weighs the activations of a layer by the gradients that reach them",
    "perturbation": "changes the image and looks at the output",
    "optimisation": "changes the image until the output is what it should become",
}

NEEDS: dict[str, str] = {
    "path": "a gradient with respect to the image",
    "rule": "layers that have a rule",
    "layer": "a layer with spatial extent, and gradients that reach it",
    "perturbation": "nothing but its output",
    "optimisation": "a gradient with respect to the image",
}
"""What the methods of a kind need of a network, where they do not say it themselves."""

SHARED = """\
model
    Network that returns (batch, classes) or (batch,), or see `output`, or a prepared `xaitools.models.Network`; it is
    not changed.
images
    Images or volumes (batch, channel, *spatial).
target
    Class to explain: one for all images, or one for each. None for the single output of a regression."""

SHARED_KEYWORDS = """\
output
    Which tensor of what the model returns is explained, as in `attribute`.
batch_size
    Images in one pass through the network.
seed
    Of whatever is drawn, together with each image's content: same seed, same map, alone or in any batch.
progress
    Whether to show a bar if it takes more than two seconds; or a function that is called with the number of passes
    done and their total, and stops the work by raising."""


@dataclass(frozen=True)
class Option:
    """The text that a method's name takes in brackets.

    Attributes
    ----------
    default
        What stands there if none is given.
    meaning
        What it says, in words.
    read
        Keyword arguments of the method that it stands for.
    """

    default: str
    meaning: str
    read: Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Setting:
    """What a method makes its plan of.

    Attributes
    ----------
    network
        The network to explain.
    images
        All images (n, channel, *spatial), on its device.
    target
        Class to explain for each, (n,), or None.
    name
        The method's name with its option, such as "lrp[epsilon]".
    batch_size
        Images in one pass.
    """

    network: Network
    images: Tensor
    target: Tensor | None
    name: str
    batch_size: int = 16

    @property
    def gradients(self) -> Passes:
        """Plain gradients of the network, which all methods share that ask for them."""
        network = self.network
        return Passes("gradients", lambda batch: network.gradients(batch.points, batch.target))


@dataclass(frozen=True)
class Method:
    """What is known of a method.

    Attributes
    ----------
    name
        As it stands in names of maps.
    function
        ``function(model, images, target=None, *, ...)``, the method by itself.
    kind
        A key of `KINDS`.
    label
        Short label for an option, as "LRP-ε" for "epsilon".
    idea
        The question that it answers, in one line.
    reference
        Where it was published.
    equation
        What it computes, as LaTeX: the map R of an image x, f being the target's output and A a layer's activations.
    use
        When to use it, in a sentence.
    failures
        What is known to go wrong, a sentence or two each.
    needs
        What it needs of a network, in one line.
    option
        What its name takes in brackets, or None.
    keywords
        Names of the keyword arguments that are its own.
    shared
        Those that `attribute` has too, and hands on: `steps`, `references`, `baselines`.
    """

    name: str
    function: Callable[..., Tensor]
    kind: Kind
    label: Callable[[str], str]
    idea: str
    reference: str
    equation: str
    use: str
    failures: tuple[str, ...]
    needs: str
    option: Option | None
    keywords: tuple[str, ...]
    shared: tuple[str, ...]
    _plan: Callable[..., Plan] = field(repr=False)
    _check: Callable[[Network], object] | None = field(repr=False, default=None)

    def plan(self, setting: Setting, option: str = "", **options: Any) -> Plan:
        """What is to be computed, with the option of the name and other keyword arguments.

        Raises
        ------
        MethodError
            If the method takes no such argument.
        """
        bracket = self.option.read(option or self.option.default) if self.option else {}
        checked_options(options, [name for name in self.keywords if name not in bracket], setting.name)
        return self._plan(setting, **bracket, **options)

    def supports(self, network: Network) -> str | None:
        """Why the method would be wrong on this network, or None: tried on its example, by a pass or two."""
        try:
            if self._check is not None:
                self._check(network)
            else:
                few = {"steps": 1} if "steps" in self.keywords else {}
                references = {"references": network.example} if "references" in self.keywords else {}
                self.function(
                    network, network.example, network.first_class, progress=False, **few, **references
                )
        except XaitoolsError as error:
            return str(error)
        return None


METHODS: dict[str, Method] = {}
"""All methods by name, in alphabetical order."""

FAMILIES: dict[str, Callable[[str], Method]] = {}
"""What makes methods of names that begin so, such as "captum."."""


def find(name: str) -> Method:
    """The method of that name.

    Raises
    ------
    MethodError
        If there is none.
    """
    for prefix, make in FAMILIES.items():
        if name.startswith(prefix):
            return make(name)
    if name not in METHODS:
        raise MethodError(f"method={name!r} is unknown; expected one of {', '.join(METHODS)}.")
    return METHODS[name]


def method(
    kind: Kind,
    *,
    label: str | Callable[[str], str],
    idea: str,
    reference: str,
    equation: str = "",
    use: str = "",
    failures: tuple[str, ...] = (),
    needs: str = "",
    option: Option | None = None,
    check: Callable[[Network], object] | None = None,
) -> Callable[[Callable[..., Plan]], Callable[..., Tensor]]:
    """Register the decorated function, which makes a `Plan` of a `Setting`, and return the method that it is.

    Parameters
    ----------
    kind, label, idea, reference, equation, use, failures, option
        As in `Method`.
    needs
        As in `Method`; by default that of its kind.
    check
        Raises an `XaitoolsError` for a network that the method does not suit; by default the method is tried.
    """

    def register(make: Callable[..., Plan]) -> Callable[..., Tensor]:
        made = METHODS[make.__name__] = method_of(
            make,
            kind=kind,
            label=label,
            idea=idea,
            reference=reference,
            equation=equation,
            use=use,
            failures=failures,
            needs=needs,
            option=option,
            check=check,
        )
        return made.function

    return register


def method_of(
    make: Callable[..., Plan],
    *,
    kind: Kind,
    label: str | Callable[[str], str],
    idea: str,
    reference: str,
    equation: str = "",
    use: str = "",
    failures: tuple[str, ...] = (),
    needs: str = "",
    name: str = "",
    option: Option | None = None,
    check: Callable[[Network], object] | None = None,
    keywords: Iterable[str] | None = None,
) -> Method:
    """The method that a function makes plans for; see `method`. Other `keywords` than the function's are not shared."""
    own = list(inspect.signature(make).parameters)[1:] if keywords is None else list(keywords)
    shared = [key for key in ("steps", "references", "baselines") if key in own and keywords is None]
    name = name or make.__name__
    return Method(
        name,
        _alone(make, name, reference),
        kind,
        label if callable(label) else lambda _: label,
        idea,
        reference,
        equation,
        use,
        failures,
        needs or NEEDS[kind],
        option,
        tuple(own),
        tuple(shared),
        make,
        check,
    )


def _alone(make: Callable[..., Plan], name: str, reference: str) -> Callable[..., Tensor]:
    """The method by itself, for clean images."""

    def function(
        model: Any,
        images: Tensor,
        target: Any = None,
        *,
        output: Output = None,
        batch_size: int = 16,
        seed: int = 0,
        progress: bool | Progress = True,
        **options: Any,
    ) -> Tensor:
        check_counts(error=MethodError, batch_size=batch_size)
        images = checked_images(images)
        network, points, classes = Network.entered(model, images, target, output=output)
        stream = Stream(points, classes, batch_size=batch_size, seed=seed)
        plan = make(Setting(network, points, stream.target, name, batch_size), **options)
        (group,) = grouped({name: plan}, wanted := {(name, "")})
        with Teller(group.count(len(points), 0), progress) as tell:
            (found,) = stream.maps(group, wanted, tell).values()
        return found.to(images.device)

    signature = inspect.signature(function)
    shared = list(signature.parameters.values())[:-1]
    own = list(inspect.signature(make).parameters.values())[1:]
    ordered = sorted([*shared[:3], *own, *shared[3:]], key=lambda parameter: parameter.kind)
    function.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
    function.__name__ = function.__qualname__ = name
    function.__module__ = make.__module__
    function.__doc__ = _documentation(inspect.getdoc(make) or "", reference)
    return function


def _documentation(own: str, reference: str) -> str:
    """The docstring of a method with the parameters that all methods share, written once."""
    heading = "Parameters\n----------\n"
    head, found, rest = own.partition(heading)
    if not found:
        head, _, rest = own.partition("Returns\n-------\n")
        rest = f"\nReturns\n-------\n{rest}"
    middle, returns, end = rest.partition("\nReturns\n-------\n")
    own_parameters = f"{middle.strip()}\n" if middle.strip() else ""
    parameters = f"{heading}{SHARED}\n{own_parameters}{SHARED_KEYWORDS}\n"
    return f"{head}{parameters}{returns}{end}\n\nReferences\n----------\n{reference}\n"
