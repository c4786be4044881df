import numpy as np
import pytest

from xaitools.attribution import combine
from xaitools.study import judge, margin_verdict, matched

SG2 = "smoothgrad_squared"
SPREAD = np.linspace(-0.01, 0.01, 12)


def scores(**levels):
    return {name.replace("__", "+"): level + SPREAD for name, level in levels.items()}


def test_maps_are_matched_in_all_but_one_thing():
    names = combine(["gradient", "deconvolution"], ["", SG2], ["", "xrai"])
    squared, plain = matched(names, "smoothing", [SG2, ""])
    assert squared == [name.replace("+absolute", f"+{SG2}+absolute") for name in plain]
    assert len(squared) == 4
    assert matched(names, "smoothing", [SG2, ""], regions="xrai") == [
        [name for name in squared if name.endswith("@xrai")],
        [name for name in plain if name.endswith("@xrai")],
    ]


@pytest.mark.parametrize(
    "other",
    [
        "deconvolution",  # another method
        "gradient+absolute",  # the absolute value
        "gradient@xrai",  # regions
        "integrated_gradients[black]",
    ],
)
def test_maps_that_differ_in_anything_else_are_no_pair(other):
    assert matched([f"gradient+{SG2}", other], "smoothing", [SG2, ""]) == [[], []]


def test_options_of_one_method_do_not_mix():
    names = [f"occlusion[8]+{SG2}", "occlusion[4]", "occlusion[8]"]
    assert matched(names, "smoothing", [SG2, ""]) == [[f"occlusion[8]+{SG2}"], ["occlusion[8]"]]


def test_a_claim_on_all_methods_takes_only_the_complete_ones():
    names = [
        "gradient",
        "gradient+smoothgrad",
        "deconvolution",
        "deconvolution+smoothgrad",
        "expected_gradients",
    ]
    found = matched(names, "source", ["gradient", "expected_gradients", "deconvolution"])
    assert found == [["gradient"], ["expected_gradients"], ["deconvolution"]]


def test_a_claim_is_judged_by_the_paired_difference_and_recorded(run, recorded):
    own = scores(gradient=0.5, gradient__smoothgrad_squared=0.7)
    row = judge(
        run, own, "SG² is best", "smoothing", [SG2, ""], "SG² minus plain", network="net", unit="px", digits=1
    )
    assert row == {
        "published": "SG² is best",
        "network": "net",
        "this run": "SG² minus plain: +0.2 (+0.2 to +0.2) px",
        "verdict": "agrees",
    }
    assert recorded()["", "difference: SG² minus plain"] == pytest.approx(0.2)


def test_the_other_verdicts(run):
    def verdict(first, second):
        own = {"gradient": first, f"gradient+{SG2}": second}
        return judge(run, own, "", "smoothing", [SG2, ""], "d")["verdict"]

    rng = np.random.default_rng(0)
    assert verdict(0.7 + SPREAD, 0.5 + SPREAD) == "differs"
    assert verdict(rng.normal(size=12), rng.normal(size=12)).startswith("undecided")


def test_one_region_map_is_not_compared_with_pixel_maps_of_other_methods(run, recorded):
    """What read "quality is best with SG²: agrees" before."""
    own = {f"gradient+{SG2}+absolute@xrai": 0.9 + SPREAD, "deconvolution+absolute": 0.5 + SPREAD}
    row = judge(run, own, "quality is best with SG²", "smoothing", [SG2, ""], "AUC of SG² minus plain")
    assert row["verdict"].startswith("not tested: the maps it takes, alike in all but the smoothing")
    assert row["this run"] == ""
    assert recorded() == {}


def test_without_scores_a_claim_says_that_nothing_was_measured(run):
    row = judge(run, {}, "quality is best", "smoothing", [SG2, ""], "d")
    assert row["verdict"] == "not tested: not measured in this run"


def test_several_better_maps_have_the_same_weight(run, recorded):
    own = scores(
        gradient=0.8, gradient__smoothgrad=0.9, expected_gradients=0.4, expected_gradients__smoothgrad=0.5
    )
    own |= scores(deconvolution=0.1, deconvolution__smoothgrad=0.2)
    sources = ["gradient", "expected_gradients", "deconvolution"]
    row = judge(run, own, "D is worst", "source", sources, "D", metric="lead: {}")
    assert recorded()["", "lead: D"] == pytest.approx(np.mean([0.85, 0.45]) - 0.15)
    assert "mean of 2 pairs" in row["this run"]


@pytest.mark.parametrize(
    ("margin", "verdict"), [(0.2, "agrees"), (-0.2, "differs"), (0.1, "undecided"), (0, "undecided")]
)
def test_margins_without_an_interval(margin, verdict):
    assert margin_verdict(margin, tolerance=0.1).split(":")[0] == verdict
