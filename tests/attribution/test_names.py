import pytest

from xaitools.attribution.names import BASES, REGIONS, SMOOTHINGS, MethodName, combine, parse
from xaitools.errors import MethodError

OPTIONS = {"integrated_gradients": ["black", "white", "black+white", "mean slice"]}
ALL = [
    MethodName(base, option, smoothing, absolute, regions)
    for base in (*BASES, "captum.InputXGradient")
    for option in OPTIONS.get(base, [""])
    for smoothing in ("", *SMOOTHINGS)
    for absolute in (False, True)
    for regions in ("", *REGIONS)
]


@pytest.mark.parametrize("name", ALL, ids=str)
def test_printer_and_parser_round_trip(name: MethodName) -> None:
    assert parse(str(name)) == name


def test_integrated_gradients_starts_from_black() -> None:
    assert parse("integrated_gradients") == parse("integrated_gradients[black]")


def test_labels_are_those_of_the_paper() -> None:
    names = [
        "gradient",
        "integrated_gradients+smoothgrad",
        "integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai",
        "expected_gradients+absolute",
        "deconvolution",
    ]
    assert [parse(name).label for name in names] == ["BP", "IGB SG", "IGBW SG² region", "EG", "D"]


def test_the_table_of_the_ct_study_has_thirty_names() -> None:
    bases = [
        "gradient",
        "integrated_gradients",
        "integrated_gradients[black+white]",
        "expected_gradients",
        "deconvolution",
    ]
    names = combine(bases, ["", "smoothgrad", "smoothgrad_squared"], ["", "xrai"])
    assert len(set(names)) == 30
    assert [str(parse(name)) for name in names] == names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gradeint", "known: gradient, .*Did you mean 'gradient'"),
        ("gradient+smothgrad", "Did you mean 'smoothgrad'"),
        ("gradient@slic", "known: xrai"),
        ("gradient+smoothgrad+vargrad", "at most one"),
        ("gradient+absolute+smoothgrad", "then at most one 'absolute'"),
        ("gradient[black]", "takes no option"),
        ("gradient +absolute", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_bad_names_say_what_is_known(name: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        parse(name)
