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
