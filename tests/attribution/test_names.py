import dataclasses

import pytest

from xaitools.attribution import METHODS
from xaitools.attribution._lrp_rules import RULES
from xaitools.attribution.names import REGIONS, SMOOTHINGS, MethodName, combine, parse, parse_all
from xaitools.errors import MethodError

OPTIONS = {
    "integrated_gradients": ["black", "white", "black+white", "mean slice"],
    "lrp": RULES,
    "occlusion": ["5", "8:4"],
}


def default(base: str) -> str:
    option = METHODS[base].option if base in METHODS else None
    return option.default if option else ""


ALL = [
    MethodName(base, option, smoothing, absolute, regions)
    for base in (*METHODS, "captum.InputXGradient")
    for option in OPTIONS.get(base, [default(base)])
    for smoothing in ("", *SMOOTHINGS)
    for absolute in (False, True)
    for regions in ("", *REGIONS)
]


@pytest.mark.parametrize("name", ALL, ids=str)
def test_printer_and_parser_round_trip(name: MethodName) -> None:
    assert parse(str(name)) == name


LABELS = [
    ("BP", "gradient"),
    ("BP abs SG", "gradient+smoothgrad+absolute"),
    ("IGBW SG² region", "integrated_gradients[black+white]+smoothgrad_squared@xrai"),
    ("IGBW SG2 region", "integrated_gradients[black+white]+smoothgrad_squared@xrai"),
    ("LRP-ε", "lrp[epsilon]"),
    ("I*G VG", "input_x_gradient+vargrad"),
    ("GC++", "grad_cam_plus_plus"),
]


@pytest.mark.parametrize(("label", "name"), LABELS)
def test_labels_are_read_as_names(label: str, name: str) -> None:
    assert parse(label) == parse(name)


@pytest.mark.parametrize("base", METHODS)
def test_labels_of_methods_lead_back_to_them(base: str) -> None:
    option = METHODS[base].option
    options = {"lrp": RULES}.get(base, [option.default] if option else [""])
    if options == ["black"]:
        options = ["black", "white", "black+white"]
    for own in options:
        for smoothing in ("", *SMOOTHINGS):
            for regions in ("", *REGIONS):
                name = MethodName(base, own, smoothing, False, regions)
                assert parse(name.label) == name


def test_a_label_of_two_methods_is_refused(monkeypatch) -> None:
    other = dataclasses.replace(METHODS["gradient"], name="slope")
    monkeypatch.setitem(METHODS, "slope", other)
    with pytest.raises(
        MethodError, match=r"'BP SG' is that of gradient\+smoothgrad, slope\+smoothgrad; give one"
    ):
        parse("BP SG")


def test_about_tells_the_name_and_the_idea() -> None:
    assert parse("BP SG² region").about == (
        "gradient+smoothgrad_squared@xrai: How would the answer change if this pixel became brighter? "
        "Mean of the squares over noisy copies of the image. Ranked by regions of the image (XRAI)."
    )


def test_integrated_gradients_starts_from_black() -> None:
    assert parse("integrated_gradients") == parse("integrated_gradients[black]")


def test_lrp_is_that_of_epsilon() -> None:
    assert parse("lrp+smoothgrad") == parse("lrp[epsilon]+smoothgrad")


def test_labels_are_those_of_the_paper() -> None:
    names = [
        "gradient",
        "integrated_gradients+smoothgrad",
        "integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai",
        "expected_gradients+absolute",
        "deconvolution",
    ]
    assert [parse(name).label for name in names] == ["BP", "IGB SG", "IGBW SG² region", "EG", "D"]


def test_combinations_have_a_name_each() -> None:
    names = combine(["gradient", "lrp", "occlusion[8:4]"], ["", "smoothgrad", "vargrad"], ["", "xrai"])
    assert len(set(names)) == 18
    assert [str(parse(name)) for name in names] == names


def test_labels_of_the_other_methods() -> None:
    labels = {
        "guided_backprop": "GB",
        "input_x_gradient+smoothgrad": "I*G SG",
        "deep_taylor": "DT",
        "lrp": "LRP-ε",
        "lrp[gamma]": "LRP-γ",
        "lrp[alpha2_beta1]": "LRP-α2β1",
        "lrp[epsilon_plus]": "LRP-ε plus",
        "lrp[epsilon_alpha2_beta1_flat]+absolute@xrai": "LRP-εα2β1 flat region",
    }
    assert {name: parse(name).label for name in labels} == labels
    assert len({parse(f"lrp[{rule}]").label for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gradeint", "known: .*gradient, .*Did you mean 'gradient'"),
        ("gradient+smothgrad", "Did you mean 'smoothgrad'"),
        ("gradient@slic", "known: xrai"),
        ("gradient+smoothgrad+vargrad", "at most one"),
        ("gradient+absolute+smoothgrad", "then at most one 'absolute'"),
        ("gradient[black]", "takes no option.*these do: .*integrated_gradients, .*lrp"),
        ("gradient +absolute", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_bad_names_say_what_is_known(name: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        parse(name)


def test_one_name_is_one_method() -> None:
    assert parse_all("lrp[epsilon]") == {"lrp[epsilon]": parse("lrp[epsilon]")} == parse_all(["lrp[epsilon]"])
    for nothing in ("", [], ()):
        with pytest.raises(MethodError):
            parse_all(nothing)
