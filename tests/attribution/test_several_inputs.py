"""Maps of networks of several inputs, against captum's tuples and float64 autograd through the user's own model."""

import copy

import captum.attr
import pytest
import torch
from torch import nn

from xaitools.attribution import attribute, attribute_inputs, xrai
from xaitools.attribution._stream import add_noise, seed_of
from xaitools.attribution.xrai import segment_all
from xaitools.errors import (
    DataError,
    ParameterError,
    ShapeError,
    TargetError,
    UnsupportedModelError,
)

QUIET = {"progress": False}


class Clinic(nn.Module):
    """An image and a table, joined before the last layers: smooth enough for quadrature unless told otherwise."""

    def __init__(self, dims: int = 2, columns: int = 3, kind: type = nn.Softplus, bias: bool = True) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.image = nn.Sequential(
            conv(1, 4, 3, padding=1, bias=bias), kind(), conv(4, 3, 3, bias=bias), kind()
        )
        self.table = nn.Sequential(nn.Linear(columns, 5, bias=bias), kind())
        self.head = nn.Sequential(nn.Linear(8, 6, bias=bias), kind(), nn.Linear(6, 2, bias=bias))

    def forward(self, image, table):
        seen = self.image(image).flatten(2).mean(2)
        return self.head(torch.cat([3 * seen, self.table(table)], 1))


def clinic(**settings) -> nn.Module:
    torch.manual_seed(1)
    return Clinic(**settings).eval()


def inputs_of(n: int = 2, dims: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(n, 1, *[7, 6, 5][:dims], generator=generator), torch.randn(n, 3, generator=generator)


def gradients64(model, inputs, target):
    leaves = [value.double().requires_grad_() for value in inputs]
    scores = copy.deepcopy(model).double()(*leaves)[:, target]
    return torch.autograd.grad(scores.sum(), leaves)


def close(actual, expected, rtol=2e-4):
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=rtol, atol=rtol * float(expected.abs().max())
    )


def all_close(actual, expected, rtol=2e-4):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        close(one, other, rtol)


@pytest.mark.parametrize("dims", [2, 3])
def test_gradients_of_all_inputs(dims) -> None:
    model, inputs = clinic(dims=dims), inputs_of(dims=dims)
    maps = attribute(model, inputs, 1, ["gradient", "input_x_gradient"], **QUIET)
    expected = gradients64(model, inputs, 1)
    all_close(maps["gradient"], expected)
    all_close(maps["input_x_gradient"], [value * part for value, part in zip(inputs, expected, strict=True)])


def test_integrated_gradients_move_all_inputs_together() -> None:
    """captum with as many points, and completeness over both inputs; each from a baseline of its own."""
    model, inputs = clinic(), inputs_of()
    start = (torch.rand(1, 7, 6, generator=torch.Generator().manual_seed(5)), torch.tensor([1.0, -1.0, 0.5]))
    name = "integrated_gradients[healthy]"
    maps = attribute(
        model, inputs, [0, 1], [name, "idgi[healthy]"], baselines={"healthy": start}, steps=20, **QUIET
    )
    double = copy.deepcopy(model).double()
    wide = tuple(value.double() for value in inputs)
    begin = tuple(value.double()[None] for value in start)
    expected = captum.attr.IntegratedGradients(double).attribute(
        wide, begin, torch.tensor([0, 1]), n_steps=20, method="gausslegendre"
    )
    all_close(maps[name], expected)
    with torch.no_grad():
        both = (double(*wide) - double(*begin)).gather(1, torch.tensor([[0], [1]]))[:, 0]
    close(maps[name][0].sum((1, 2, 3)) + maps[name][1].sum(1), both, rtol=1e-3)
    assert maps.completeness_gap[name].abs().max() < 1e-4 * both.abs().max()
    idgi = maps["idgi[healthy]"]
    close(idgi[0].sum((1, 2, 3)) + idgi[1].sum(1), both, rtol=1e-3)


def test_expected_gradients_draw_one_patient_for_all_inputs() -> None:
    """With the table equal to a number of the image in each reference, both inputs show the same one was drawn."""

    class Product(nn.Module):
        def forward(self, image, table):
            return (image.flatten(1) * table).sum(1)

    references = torch.arange(1.0, 6.0)
    rows = (references.view(5, 1, 1, 1), references.view(5, 1))
    inputs = (torch.full((1, 1, 1, 1), 10.0), torch.full((1, 1), 10.0))
    (image, table) = attribute(
        Product(), inputs, None, ["expected_gradients"], references=rows, steps=7, **QUIET
    )["expected_gradients"]
    close(image.flatten(), table.flatten())
    model, inputs = clinic(), inputs_of(1)
    many = attribute(
        model,
        inputs,
        0,
        ["expected_gradients"],
        references=inputs_of(40),
        steps=3000,
        batch_size=500,
        **QUIET,
    )["expected_gradients"]
    with torch.no_grad():
        change = float(model(*inputs)[0, 0] - model(*inputs_of(40))[:, 0].mean())
    assert abs(float(many[0].sum() + many[1].sum()) - change) < 0.05 * abs(change)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.parametrize("name", ["guided_backprop", "deconvolution"])
def test_rules_of_relus(name) -> None:
    model, inputs = clinic(kind=nn.ReLU), inputs_of()
    kind = {"guided_backprop": captum.attr.GuidedBackprop, "deconvolution": captum.attr.Deconvolution}[name]
    expected = kind(copy.deepcopy(model)).attribute(
        tuple(value.clone().requires_grad_() for value in inputs), target=1
    )
    all_close(attribute(model, inputs, 1, [name], **QUIET)[name], expected)


def test_relevance_is_shared_out_among_all_inputs() -> None:
    """Without biases and with a vanishing epsilon it is input times gradient, and sums to the score."""
    model, inputs = clinic(kind=nn.ReLU, bias=False), inputs_of()
    names = ["lrp[epsilon]", "lrp[alpha2_beta1]", "deep_taylor"]
    bounds = {"deep_taylor": {"low": (0.0, torch.full((3,), -5.0)), "high": (1.0, 5.0)}}
    maps = attribute(model, inputs, 1, names, options=bounds, **QUIET)
    scores = model(*inputs)[:, 1].detach()
    products = [value * part for value, part in zip(inputs, gradients64(model, inputs, 1), strict=True)]
    all_close(maps["lrp[epsilon]"], products, rtol=1e-3)
    for name in names:
        total = maps[name][0].sum((1, 2, 3)) + maps[name][1].sum(1)
        close(maps.relevance_gap[name] + total, scores, rtol=1e-3)
    assert (maps.relevance_gap["lrp[epsilon]"] / scores).abs().max() < 1e-3


@pytest.mark.parametrize("held", [0, 1])
def test_held_inputs_stay_as_they_are(held) -> None:
    """On paths, in noisy copies and behind patches, each image with its own."""
    model, inputs = clinic(), inputs_of(3)
    free = 1 - held
    names = ["integrated_gradients[black]", "occlusion[2]", "gradient", "captum.Saliency"]
    names += ["blur_integrated_gradients"] if held else []
    maps = attribute(
        model, inputs, 1, names, held=(held,), steps=20, options={"captum.Saliency": {"abs": False}}, **QUIET
    )
    assert all(parts[held] is None for parts in maps.values())
    gradient = gradients64(model, inputs, 1)[free]
    close(maps["gradient"][free], gradient)
    close(maps["captum.Saliency"][free], gradient)

    def score(moving, own):
        both = [own, own]
        both[free], both[held] = moving, own
        return copy.deepcopy(model).double()(*(value.double() for value in both))[:, 1]

    expected = captum.attr.IntegratedGradients(score).attribute(
        inputs[free].double(), 0.0, None, (inputs[held],), n_steps=20, method="gausslegendre"
    )
    close(maps["integrated_gradients[black]"][free], expected)
    assert maps.completeness_gap["integrated_gradients[black]"].abs().max() < 1e-4
    hidden = inputs[free].clone()
    part = (..., slice(0, 2), slice(2, 4)) if held else (..., 1)
    hidden[part] = 0
    fall = (score(inputs[free], inputs[held]) - score(hidden, inputs[held])).detach()
    shape = (3, 1, 1, 1) if held else (3,)
    found = maps["occlusion[2]"][free][part]
    close(found, fall.view(shape).expand(found.shape), rtol=1e-3)


def test_spatial_methods_change_one_input_at_a_time() -> None:
    model, inputs = clinic(), inputs_of()
    names = ["occlusion[2:1]", "captum.FeatureAblation"]
    together = attribute(model, inputs, 0, names, **QUIET)
    image = attribute(model, inputs, 0, names, held=(1,), **QUIET)
    table = attribute(model, inputs, 0, names, held=(0,), **QUIET)
    for name in names:
        close(together[name][0], image[name][0])
        close(together[name][1], table[name][1])
    ablation = captum.attr.FeatureAblation(model).attribute(inputs, target=0)
    all_close(together["captum.FeatureAblation"], ablation, rtol=1e-3)
    close(together["occlusion[2:1]"][1], ablation[1], rtol=1e-3)


def test_regions_are_those_of_images() -> None:
    model, inputs = clinic(), inputs_of(1)
    segments = (segment_all(inputs[0]), None)
    maps = attribute(model, inputs, 0, ["gradient+absolute@xrai", "gradient"], segments=segments, **QUIET)
    image, table = (part.abs() for part in maps["gradient"])
    close(maps["gradient+absolute@xrai"][0], xrai(image, inputs[0], segments=segments[0]))
    close(maps["gradient+absolute@xrai"][1], table)
    with pytest.raises(DataError, match="constant"):
        attribute(model, (0 * inputs[0], inputs[1]), 0, ["gradient@xrai"], **QUIET)


def test_noise_for_each_image_by_its_range_and_none_for_tables() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(12, generator=torch.Generator().manual_seed(0)))

        def forward(self, first, second, table):
            joined = torch.cat([first.flatten(1), second.flatten(1) / 100, table], 1)
            return (joined**3 * self.weight).sum(1)

    generator = torch.Generator().manual_seed(1)
    first = torch.rand(1, 1, 2, 2, generator=generator)
    second = 100 * torch.rand(1, 1, 3, 2, generator=generator)
    table = torch.randn(1, 2, generator=generator)
    model = Two()
    names = ["gradient+smoothgrad", "gradient+vargrad", "gradient"]
    maps = attribute(model, (first, second, table), None, names, draws=4, noise_level=0.2, **QUIET)
    row = torch.cat([first.flatten(), second.flatten(), table.flatten()]).view(1, 1, 12)
    width = torch.cat(
        [(first.max() - first.min()).expand(4), (second.max() - second.min()).expand(6), torch.zeros(2)]
    ).view(1, 1, 12)
    seed = seed_of(row, 0)
    noisy = torch.stack([add_noise(row, draw, 0.2, seed + (draw << 12), width) for draw in range(1, 5)])
    copies = noisy.flatten(1).split([4, 6, 2], 1)
    shaped = [
        part.view(4, *value.shape[1:]) for part, value in zip(copies, (first, second, table), strict=True)
    ]
    assert torch.equal(shaped[2], table.expand(4, 2))
    gradients = gradients64(lambda_of(model), shaped, 0)
    all_close(maps["gradient+smoothgrad"], [part.mean(0, keepdim=True) for part in gradients])
    assert (maps["gradient+vargrad"][2] == 0).all()
    assert (maps["gradient+vargrad"][0] > 0).all()
    assert (maps["gradient+vargrad"][1] > 0).all()


def lambda_of(model: nn.Module) -> nn.Module:
    """The model with its single output as a column."""

    class Column(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            return self.model(*inputs)[:, None]

    return Column()


MANY = ["gradient+smoothgrad", "integrated_gradients[black]", "occlusion[3]", "idgi"]


@pytest.mark.parametrize("held", [(), (1,)])
def test_an_image_does_not_depend_on_its_batch(held) -> None:
    model, inputs = clinic(), inputs_of(3)
    settings = {"held": held, "draws": 2, "steps": 3, **QUIET}
    together = attribute(model, inputs, [0, 1, 0], MANY, batch_size=2, **settings)
    alone = attribute(model, tuple(value[1:2] for value in inputs), 1, MANY, **settings)
    for name in MANY:
        for one, other in zip(together[name], alone[name], strict=True):
            if one is not None:
                close(one[1:2], other)


def test_whole_numbers_in_a_table() -> None:
    """Real numbers to a network that computes with them; to one that looks them up they have no gradient."""
    model, (image, _) = clinic(), inputs_of()
    years = torch.tensor([[61, 0, 1], [72, 1, 0]])
    expected = gradients64(model, (image, years), 1)
    all_close(attribute(model, (image, years), 1, **QUIET)["gradient"], expected)

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clinic, self.sexes = model, nn.Embedding(2, 3)

        def forward(self, image, sex):
            return self.clinic(image, self.sexes(sex.long()[:, 0]))

    sexes = torch.tensor([[0], [1]])
    net = Lookup()
    with pytest.raises(UnsupportedModelError, match=r"held=\(1,\)"):
        attribute(net, (image, sexes), 1, **QUIET)
    maps = attribute(net, (image, sexes), 1, ["gradient", "occlusion[2]"], held=(1,), **QUIET)
    close(maps["gradient"][0], gradients64(model, (image, net.sexes(sexes[:, 0]).detach()), 1)[0])


def test_one_count_of_passes() -> None:
    told = []
    model, inputs = clinic(), inputs_of(2)
    maps = attribute(
        model,
        inputs,
        1,
        ["gradient", "occlusion[3]"],
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (maps.passes, maps.passes)
    assert maps.passes == 2 * (1 + 3 * 2 + 3)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_method_that_fails_is_kept_with_its_reason() -> None:
    model, inputs = clinic(), inputs_of()
    names = ["gradient", "guided_backprop", "blur_integrated_gradients", "occlusion[3]+smoothgrad"]
    maps = attribute(model, inputs, 1, names, on_error="keep", **QUIET)
    assert list(maps) == ["gradient"]
    assert set(maps.errors) == set(names[1:])
    assert "No ReLU was found in Clinic" in str(maps.errors["guided_backprop"])
    assert "input 1 is a table" in str(maps.errors["blur_integrated_gradients"])
    assert "failed" in repr(maps)
    with pytest.raises(UnsupportedModelError, match="No ReLU was found in Clinic"):
        attribute(model, inputs, 1, names[:2], **QUIET)


def test_the_model_and_the_inputs_stay_as_they_are() -> None:
    model, inputs = clinic().train(), inputs_of()
    before, kept = copy.deepcopy(model.state_dict()), [value.clone() for value in inputs]
    attribute(model, inputs, 1, ["gradient", "occlusion[3]"], held=(1,), **QUIET)
    assert model.training
    assert all(torch.equal(value, other) for value, other in zip(inputs, kept, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def changed(k, change):
    inputs = list(inputs_of())
    inputs[k] = change(inputs[k])
    return tuple(inputs)


REFUSED = {
    "another number of rows": (
        ShapeError,
        "2, 3 images or rows",
        {"inputs": (inputs_of()[0], torch.randn(3, 3))},
    ),
    "NaN in a table": (DataError, "input 1.*fill in", {"inputs": changed(1, lambda x: x * torch.nan)}),
    "NaN in an image": (DataError, "input 0", {"inputs": changed(0, lambda x: x / 0)}),
    "a column without an axis": (
        ShapeError,
        r"input 1.*\(batch, 1\)",
        {"inputs": changed(1, lambda x: x[:, 0])},
    ),
    "one input too few": (UnsupportedModelError, "does not take 1 inputs", {"inputs": inputs_of()[:1]}),
    "nothing to explain": (ParameterError, "nothing to explain", {"held": (0, 1)}),
    "no such input": (ParameterError, "from 0 to 1", {"held": (2,)}),
    "words": (DataError, "input 1", {"inputs": changed(1, lambda x: [["a"], ["b"]])}),
    "an unknown class": (TargetError, "2 outputs", {"target": 2}),
    "references of one": (
        ShapeError,
        "1 parts for 2 inputs",
        {"methods": ["expected_gradients"], "references": inputs_of()[:1]},
    ),
    "unequal references": (
        ShapeError,
        "row of all",
        {"methods": ["expected_gradients"], "references": (inputs_of(4)[0], inputs_of(3)[1])},
    ),
    "a baseline that does not fit": (
        ShapeError,
        "baseline 'mean' of input 1",
        {"methods": ["integrated_gradients[mean]"], "baselines": {"mean": (0.0, torch.zeros(4))}},
    ),
    "columns of another number": (
        UnsupportedModelError,
        "does not run",
        {"inputs": changed(1, lambda x: x[:, :2])},
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_in_words(kind) -> None:
    error, words, settings = REFUSED[kind]
    with pytest.raises(error, match=words):
        attribute_inputs(clinic(), **{"inputs": inputs_of(), "target": 1, **settings, **QUIET})


def test_inputs_are_held_only_among_several() -> None:
    with pytest.raises(ParameterError, match="tuple"):
        attribute(clinic(), inputs_of()[0], 1, held=(1,), **QUIET)
