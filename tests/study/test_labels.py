import pytest

from xaitools.attribution import combine
from xaitools.errors import MethodError
from xaitools.study import method_table, unique_labels

FIVE = [
    "gradient",
    "integrated_gradients[black]",
    "integrated_gradients[black+white]",
    "expected_gradients",
    "deconvolution",
]


def test_what_labels_drop_comes_back_where_it_tells_maps_apart():
    names = ["occlusion[32:16]", "occlusion[16:8]", "gradient", "gradient+absolute"]
    assert list(unique_labels(names).values()) == ["OCC 32:16", "OCC 16:8", "BP", "BP abs"]


def test_labels_stay_short_where_nothing_has_to_be_told_apart():
    assert unique_labels(["occlusion[32:16]", "gradient+absolute"]) == {
        "occlusion[32:16]": "OCC",
        "gradient+absolute": "BP",
    }


def test_the_thirty_maps_of_the_ct_study_have_thirty_labels_and_places():
    names = combine(FIVE, ["", "smoothgrad", "smoothgrad_squared"], ["", "xrai"])
    table = method_table(names)
    assert list(table.index) == names
    assert table["label"].is_unique
    assert not table.duplicated(["base", "smoothing", "unit"]).any()
    assert dict(table.loc[names[-1]]) == {
        "label": "D SG² region",
        "base": "D",
        "smoothing": "SG²",
        "unit": "region",
    }
    assert set(table["base"]) == {"BP", "IGB", "IGBW", "EG", "D"}


@pytest.mark.parametrize(
    "names",
    [
        ["gradient", "gradient+absolute", "gradient@xrai", "gradient+absolute@xrai"],
        [
            "integrated_gradients[black]",
            "integrated_gradients[blur]",
            "integrated_gradients[black]+smoothgrad",
        ],
        ["lrp[epsilon]", "lrp[gamma]", "lrp[epsilon]+absolute", "lrp[epsilon]+smoothgrad+absolute"],
        ["occlusion[8]", "occlusion[8:4]+absolute", "occlusion[8:4]", "occlusion[8]+absolute@xrai"],
    ],
)
def test_no_two_maps_share_a_label_or_a_place_in_a_plot(names):
    table = method_table(names)
    assert table["label"].is_unique
    assert not table.duplicated(["base", "smoothing", "unit"]).any()


def test_labels_of_a_paper_are_used_also_for_what_is_made_from_its_methods():
    known = {"gradient": "G", "gradient+smoothgrad": "SG", "lrp[epsilon]": "LRP"}
    names = [*known, "gradient+absolute", "lrp[epsilon]@xrai", "deconvolution"]
    assert list(unique_labels(names, known).values()) == ["G", "SG", "LRP", "G abs", "LRP region", "D"]


def test_given_labels_that_clash_give_way_to_the_full_names():
    assert unique_labels(["gradient", "deconvolution"], {"gradient": "D"}) == {
        "gradient": "gradient",
        "deconvolution": "deconvolution",
    }


def test_a_name_that_cannot_be_read_is_refused():
    with pytest.raises(MethodError, match="gradiant"):
        unique_labels(["gradiant"])
