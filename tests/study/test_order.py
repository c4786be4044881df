import numpy as np
import pytest

from xaitools.study import ahead_in_every_run, judge_lead, method_table

PAPER = ["input_x_gradient", "guided_backprop", "occlusion[5]"]
NAMES = ["input_x_gradient", "guided_backprop", "occlusion[3]"]
STANDS_FOR = dict(zip(PAPER, NAMES, strict=True))
NAMED = method_table(NAMES, {"occlusion": "OCC"})


def judge(values, leaders, *, stands_for=STANDS_FOR, tolerance=0.5, **options):
    values = dict(zip(NAMES, values, strict=True))
    return judge_lead(
        "a claim",
        values,
        leaders,
        among=PAPER,
        stands_for=stands_for,
        named=NAMED,
        tolerance=tolerance,
        **options,
    )


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((1, 2, 5), "agrees"), ((1, 6, 5), "differs"), ((1, 5.4, 5), "undecided: too close to call")],
)
def test_a_lead_is_over_the_nearest_of_the_others(values, verdict):
    row = judge(values, ["occlusion[5]"])
    assert row["verdict"] == verdict
    assert row["this run"] == f"OCC 5.0; nearest of the others: GB {values[1]:.1f}"


@pytest.mark.parametrize(("values", "verdict"), [((1, 2, 3), "agrees"), ((1, 4, 3), "differs")])
def test_of_several_leaders_the_last_has_to_lead(values, verdict):
    leaders = ["input_x_gradient", "guided_backprop"]
    assert judge(values, leaders, larger=False)["verdict"] == verdict


def test_the_tolerance_may_be_a_share():
    assert judge((1, 1000, 1005), ["occlusion[5]"])["verdict"] == "agrees"
    within = judge((1, 1000, 1005), ["occlusion[5]"], tolerance=0.01, relative=True)
    assert within["verdict"] == "undecided: too close to call"
    assert judge((1, 1000, 1015), ["occlusion[5]"], tolerance=0.01, relative=True)["verdict"] == "agrees"
    reached = judge((1.0, 1.2, 2.0), PAPER[:2], tolerance=0.01, relative=True, larger=False)
    assert reached["verdict"] == "agrees"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((1, 2, 3), "agrees"), ((1, -2, 3), "differs"), ((1, 0.1, 3), "undecided: too close to call")],
)
def test_a_claim_about_all_is_about_their_sign(values, verdict):
    row = judge(values, PAPER)
    assert row["verdict"] == verdict
    assert "others" not in row["this run"]


def test_nobody_leads_with_less_than_noise_has():
    row = judge((1, 2, 5), ["occlusion[5]"], noise=6.0)
    assert row["verdict"] == "undecided: not more than noise, 6.0"
    assert judge((1, 2, 5), ["occlusion[5]"], noise=4.0)["verdict"] == "agrees"


@pytest.mark.parametrize("missing", PAPER)
def test_a_claim_needs_all_methods_that_it_is_about(missing):
    stands_for = {own: name for own, name in STANDS_FOR.items() if own != missing}
    row = judge((1, 2, 5), ["occlusion[5]"], stands_for=stands_for)
    assert row["verdict"].startswith("not tested: ")
    assert row["this run"] == ""


def test_every_run_has_to_agree():
    scores = {"a": np.array([0.9, 0.8]), "b": np.array([0.7, 0.7]), "c": np.array([0.6, 0.85])}
    first = ahead_in_every_run(scores, 0.5)
    assert (first.name, first.tied, first.beats_control, first.n_others) == ("a", ("c",), True, 2)
    assert first.mean == pytest.approx(0.85)
    assert not ahead_in_every_run({"a": np.array([0.9, 0.5])}, 0.5).beats_control
