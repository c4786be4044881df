"""Every sentence that code writes: what it says, and when it must not be said."""

import pandas as pd
import pytest
import torch

from xaitools.data import Samples
from xaitools.errors import MethodError
from xaitools.study import words
from xaitools.study.leaders import Leader

LABELS = {"a": "I*G", "b": "DT", "c": "IG", "d": "LRP-α1_β0", "e": "BP", "f": "GB"}


def lead(mean=0.9, tied=(), beats_control=True, control=0.5, n_others=5):
    return Leader("a", mean, tuple(tied), beats_control, control, n_others)


@pytest.mark.parametrize(
    "text", ["I*G", "integrated_gradients[black]", "a<b", "`x`", "a|b", r"a\b", "#1", "a~b"]
)
def test_markdown_shows_escaped_names_as_they_are(text):
    import html
    import re

    from nbconvert.filters import markdown2html

    shown = html.unescape(
        re.sub(r"<[^>]+>", "", markdown2html(f"x {words.escape(text)} *y* {words.escape(text)}"))
    )
    assert shown.strip() == f"x {text} y {text}"


def test_bold_names_are_escaped():
    assert words.bold("I*G") == r"**I\*G**"


def test_listings_name_a_few_and_count_the_rest():
    assert words.listing([]) == ""
    assert words.listing(["I*G"]) == r"I\*G"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.listing("abcdef", most=3) == "a, b and 4 others"


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0, "< 0.001"),
        (0.0009, "< 0.001"),
        (0.001, "0.001"),
        (0.0312, "0.031"),
        (0.2, "0.20"),
        (1, "> 0.99"),
        (float("nan"), "–"),
    ],
)
def test_p_values_are_never_zero(p, text):
    assert words.p_value(p) == text


def test_intervals_carry_sign_and_unit():
    assert words.interval(1.234, -0.5, 2, "+.1f", "px") == "+1.2 (-0.5 to +2.0) px"


def test_accuracy_stands_beside_that_of_the_larger_class():
    text = words.accuracy("my_net", 0.975, 0.5, 40, "synthetic")
    assert text.startswith(r"**my\_net** is right in **97.5%** of 40 test images (synthetic)")
    assert "50.0%" in text


def test_where_a_network_comes_from_is_said_as_it_is():
    own = words.origin("my*net", "the file")
    assert own.startswith(r"**my\*net** is the network that you gave")
    assert "nothing is trained" in own
    assert "Training stops" not in own
    trained = words.origin("resnet10", "random weights", "MAE")
    assert trained.startswith(
        "**resnet10** starts from random weights. Training stops when the MAE on the validation"
    )


def test_maps_that_do_not_add_up_are_named_with_the_remedy():
    assert words.incomplete({}, 8) == words.incomplete({"IGB": 0.05, "IGBW": 0.0}, 8) == ""
    text = words.incomplete({"IG*": 2.96, "IGBW": 0.04}, 8)
    assert text.startswith(
        r"**With 8 points on a path, IG\* does not add up to the change of the output**: up to 296%"
    )
    assert "`steps`, for instance 50" in text
    both = words.incomplete({"A": 0.051, "B": float("inf")}, 20, "my_net")
    assert r"A and B do not add up to the change of the output** of **my\_net**: all of it is missing" in both
    assert "for instance 80" in both
    assert "all of it" in words.incomplete({"A": float("nan")}, 1)


def published_table():
    columns = ["method", "metric", "network", "value", "sd", "unit", "where"]
    nan = float("nan")
    rows = [
        ["", "MAE", "vgg16", 40.17, 40.99, "px", "table 1"],
        ["", "accuracy", "", 99.7, nan, "%", "poster"],
    ]
    return pd.DataFrame(rows, columns=columns)


def test_published_numbers_come_with_their_place():
    assert (
        words.published(published_table(), metric="MAE")
        == "Published: 40.17 ± 40.99 px with vgg16 (table 1)."
    )
    assert words.published(published_table(), metric="accuracy") == "Published: 99.7 % (poster)."


def test_nothing_is_called_published_that_is_not():
    assert words.published(published_table(), metric="AUC") == ""


def test_what_was_explained_is_counted():
    assert words.explained(1, "slice", 2, 10, 1) == (
        "Explained: 1 slice, 2 maps of each; 10 points on a path, 1 noisy copy."
    )
    assert "for each of 2 networks" in words.explained(3, "image", 1, 2, 2, ["a", "b"])


def test_methods_that_failed_are_named_with_the_reason():
    text = words.failed({"lrp[epsilon]": MethodError("GELU is not among its rules.")})
    assert text == r"Without maps: lrp\[epsilon\]: GELU is not among its rules."
    assert words.failed({}) == ""


ALL_ABSOLUTE = "From all maps the absolute value is taken"


def test_the_absolute_value_is_said_to_be_taken_only_where_it_is():
    assert words.signs(["gradient+absolute", "lrp+absolute@xrai"]).startswith(ALL_ABSOLUTE)
    for methods in (["gradient"], ["gradient+absolute", "gradient"]):
        assert ALL_ABSOLUTE not in words.signs(methods)
    assert "from 1 of 2 maps" in words.signs(["gradient+absolute", "gradient"])
    assert words.signs(["gradient"]).startswith("No absolute values are taken")


def test_what_is_not_measured_is_said_with_the_reason():
    assert words.not_measured("The AUC", "there is no mask") == "The AUC is not measured: there is no mask."


def test_the_best_map_is_named_with_those_it_is_not_told_apart_from():
    text = words.best("ROC AUC", lead(tied="bc"), LABELS)
    assert (
        text
        == r"Best by ROC AUC: **I\*G** (0.900; chance: 0.500), which cannot be told apart from DT and IG."
    )
    assert words.best("ROC AUC", lead(), LABELS).endswith("ahead of all others.")


def test_no_map_is_called_best_that_does_not_beat_chance():
    text = words.best("ROC AUC", lead(0.52, beats_control=False), LABELS)
    assert "Best" not in text
    assert "ahead" not in text
    assert "**" not in text
    assert "no map is better than chance beyond doubt" in text


def test_a_single_map_is_not_called_best_nor_ahead_of_others():
    text = words.best("ROC AUC", lead(n_others=0), LABELS)
    assert text == r"By ROC AUC, **I\*G** is better than chance (0.900; chance: 0.500)."
    text = words.error_growth(lead(-16.5, control=-10.2, n_others=0), LABELS, "px")
    assert text.startswith(r"Its error grows more in the order of **I\*G** than in a random one")
    for comparison in (GROWS, AHEAD):
        assert comparison not in text


GROWS, AHEAD, MOST = "error grows most", "ahead of all others", "the order of **"


def test_the_error_grows_most_in_the_order_that_beats_the_random_one():
    text = words.error_growth(lead(-16.5, control=-10.2), LABELS, "px")
    assert text.startswith(
        r"Its error grows most when windows are disturbed in the order of **I\*G** (AOPC -16.5 px"
    )
    assert "random order -10.2 px" in text
    assert text.endswith(f"{AHEAD}.")


def test_a_method_that_does_not_beat_the_random_order_is_not_praised():
    text = words.error_growth(lead(-10.2, beats_control=False, control=-16.5), LABELS, "px")
    for praise in (GROWS, AHEAD, MOST, "**"):
        assert praise not in text
    assert "no method's order" in text
    assert "beyond doubt" in text


@pytest.mark.parametrize("beats_control", [True, False])
def test_a_positive_aopc_is_not_called_a_growing_error(beats_control):
    text = words.error_growth(lead(2.0, beats_control=beats_control, control=5.0), LABELS, "px")
    for praise in (GROWS, AHEAD, MOST, "negative"):
        assert praise not in text
    assert text.startswith("Its error does not grow")


def test_two_methods_are_called_one_only_if_their_maps_are():
    same = words.same_method("LRP", "I*G", {"a": 0.9999, "b": 0.995})
    assert r"LRP and I\*G" in same
    assert "one method here" in same
    other = words.same_method("LRP", "I*G", {"a": 0.9999, "b": 0.8})
    assert "one method here" not in other
    assert "not the same map" in other
    assert words.same_method("LRP", "I*G", {}) == ""


def test_the_summary_counts_all_four_verdicts():
    found = ["agrees", "agrees", "differs", "undecided: the interval holds 0", "not tested: why"]
    text = words.verdicts([{"verdict": verdict} for verdict in found])
    assert text == (
        "Of 5 published comparisons this run agrees with 2 and differs from 1; 1 undecided, 1 not tested."
    )
    assert words.verdicts([]) == ""


def test_a_verdict_that_would_not_be_counted_is_refused():
    with pytest.raises(ValueError, match="too close"):
        words.verdicts([{"verdict": "too close to call"}])


RUNS = pd.DataFrame({"run": ["run 1", "run 2"], "balanced accuracy": [0.75, 1.0]})


def test_accuracies_of_runs_stand_beside_a_coin_and_diverged_runs_are_named_only_if_there_are_some():
    text = words.accuracies("eitel_cnn", RUNS, 24, "synthetic brains")
    assert r"2 trainings of **eitel\_cnn** (synthetic brains)" in text
    assert "**87.5%** on average, 75.0% to 100.0%; always naming one class: 50.0%." in text
    assert "diverged" not in text
    assert words.accuracies("net", RUNS, 24, "data", ["run 3"]).endswith("training diverged: run 3.")


def test_a_published_range_needs_all_its_numbers():
    columns = ["metric", "value", "unit", "where"]
    table = pd.DataFrame(
        [
            ("acc", 86.74, "%", "section 4"),
            ("acc, lowest run", 83.06, "%", ""),
            ("acc, highest run", 90.1, "%", ""),
        ],
        columns=columns,
    )
    assert words.published_runs(table, "acc") == "Published: 86.74 % on average, 83.06 to 90.1 % (section 4)."
    assert words.published_runs(table[:2], "acc") == ""


def test_how_many_were_recognised_and_which_runs_are_missing():
    samples = Samples(
        torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1]), ("sub-001",) * 3,
        ("sub-001_img-1", "sub-001_img-2", "sub-001_img-3"), class_names=("no*", "yes"),
    )  # fmt: skip
    found = {"run 1": torch.tensor([0, 1, 1]), "run 2": torch.tensor([1, 0, 1])}
    text = words.explained_by_runs(samples, found)
    assert r"what speaks for *yes* rather than *no\**" in text
    assert "are over 1 to 2 of them" in text
    assert "Left out" not in text
    text = words.explained_by_runs(samples, {"run 1": found["run 1"]}, ["run 2", "run 3"])
    assert "are over 2 of them" in text
    assert text.endswith("recognised none of a class: run 2 and run 3.")


def test_over_a_few_runs_the_best_is_praised_only_if_every_run_agrees():
    def said(**of):
        return words.best_in_runs("AUC", lead(**of), LABELS, n_runs=3)

    assert said(beats_control=False).startswith("By AUC, no method is better than chance in all 3 runs")
    assert "**" not in said(beats_control=False)
    assert said().endswith("in each of them ahead of all others.")
    assert said(tied="bc").endswith("but not in all of them ahead of DT and IG.")
    assert "ahead" not in said(n_others=0)
    assert r"**I\*G** is better than chance in all 3 runs (mean 0.90; chance: 0.50)" in said(n_others=0)


def test_regions_are_named_with_their_source():
    text = words.regions_compared(5, 10, "an_atlas.nii")
    assert text == r"Top 5 of 10 regions that two different runs have in common. Regions: an\_atlas.nii."


def contexts(*test, **more):
    return pd.DataFrame({"fold": 1, "run": range(len(test)), "test": test, **more})


def test_networks_of_all_folds_and_runs():
    said = words.context_accuracies("gm*cnn", contexts(0.8, 0.9), 20, "synthetic", ["fold 2, run 1"])
    assert r"2 networks of the kind **gm\*cnn**" in said
    assert "on 20 test images **85.0%** on average, 80.0% to 90.0%; always naming one class: 50.0%." in said
    assert "Left out, since training diverged: fold 2, run 1." in said
    assert "on average" not in words.context_accuracies("net", contexts(0.8), 20, "synthetic")


def test_the_winner_of_a_search_is_named_only_after_one():
    table = pd.DataFrame(
        {"network": ["a_b"], "learning_rate": [0.001], "balanced accuracy, validation": [0.9]}
    )
    assert r"Of 1 drawn architecture, **a\_b** with a learning rate of 0.001" in words.architecture(table)
    assert words.architecture(pd.DataFrame()) == ""


def masks_report(**columns):
    every = {
        "score_before": [0.9, 0.8], "score_after": [0.01, 0.02], "hidden": [0.004, 0.01],
        "stopped": ["converged", "converged"], "remark": ["", ""], **columns,
    }  # fmt: skip
    return pd.DataFrame(every, index=["fold 1, run 1", "fold 1, run 2"])


def test_masks_are_told_with_what_is_to_be_minded():
    said = words.masks_made(masks_report(), "AD*")
    assert said == (
        r"The mean probability of *AD\** falls from 0.80 to 0.90 to 0.01 to 0.02 under 2 masks, which hide 0.4 to 1 % "
        "of the volume."
    )
    moving = words.masks_made(
        masks_report(
            stopped=["converged", "not yet: still moving"],
            remark=["the mask still moved: raise steps", "lower l1"],
        ),
        "AD",
    )
    assert "1 of 2 had not stopped moving after the last step." in moving
    assert moving.endswith("To be minded: fold 1, run 2: lower l1.")
    assert words.masks_made(masks_report(), "AD", "log_odds").startswith(r"The mean log\_odds of *AD* falls")
    assert "under 1 mask, which hides 0.4 %" in words.masks_made(masks_report().iloc[:1], "AD")


def test_robustness_is_told_where_there_are_other_networks():
    rows = [
        ("prob_CNN", "own", 0.05), ("prob_CNN", "inter-run", 0.6), ("prob_CNN", "inter-fold", 0.5),
        ("ROI cosine", "own", 1.0), ("ROI cosine", "inter-run", 0.7), ("ROI cosine", "inter-fold", 0.8),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["measure", "pairs", "value"])
    said = words.robustness(table)
    assert (
        "0.05 under their own masks, 0.60 under that of another run and 0.50 under that of another fold"
        in said
    )
    assert "a cosine of 0.70 between runs and 0.80 between folds" in said
    assert words.robustness(table[table["pairs"] == "own"]) == ""


def test_what_nobody_knows_is_not_measured():
    assert "is not measured" in words.as_good_at_random(pd.DataFrame(), 50)
    table = pd.DataFrame({"AUC": [0.7, 0.8], "as good at random": [0.02, 0.5]})
    said = words.as_good_at_random(table, 49)
    assert "0.75 on average (0.70 to 0.80)." in said
    assert said.endswith("does as well in 2 to 50 % of 50 draws, the mask itself counted among them.")
    assert words.regions_found(pd.DataFrame({"mask": ["a"]}), 5) == ""
    assert "Of the 5 most hidden regions, 50% are known to matter" in words.regions_found(
        pd.DataFrame({"found": [0.4, 0.6]}), 5
    )


def test_published_cosines_and_sessions_only_where_there_are_some():
    assert words.published_cosines({"ROI cosine, l1=0.1 and l1=0.01": 0.93}) == (
        "Published (table 1): 0.93 of l1=0.1 and l1=0.01."
    )
    assert words.published_cosines({"folds": 5}) == ""
    assert words.longitudinal(pd.DataFrame()) == ""
    table = pd.DataFrame(
        {
            "pairs": ["one participant"],
            "earlier outside later": [0.2],
            "later outside earlier": [0.5],
            "n": [3],
        }
    )
    assert words.longitudinal(table).startswith(
        "Of 3 participants with two sessions, 20% of the earlier mask"
    )


def test_accuracies_of_the_poster_and_the_difference_of_groups_only_where_there_are_some():
    said = words.published_accuracies({"balanced accuracy, test": 0.88, "folds": 5})
    assert said == "Published: 88.0% (test)."
    assert words.published_accuracies({"folds": 5}) == ""
    table = pd.DataFrame(
        {
            "mask": ["masks of the other networks", "difference of the groups"],
            "ROI cosine": [0.9, 0.8],
            "prob_CNN": [0.4, 0.5],
        }
    )
    said = words.group_difference(table)
    assert "a cosine of 0.80 with the masks (masks of other networks: 0.90)" in said
    assert words.group_difference(table.iloc[:1]) == ""
    assert words.group_difference(table.replace(0.9, float("nan"))) == ""


def uses(network, matched=None, n=80, alone=0.8, **parts):
    values = {"majority class": 0.5, "brain volume alone": alone, "network": network}
    counts = {"network": n}
    if matched is not None:
        values["network, matched heads"], counts["network, matched heads"] = matched
    controls = pd.DataFrame(
        [
            {"preprocessing": "none", "control": name, "value": value, "n": counts.get(name, n)}
            for name, value in values.items()
        ]
    )
    rows = [
        {"part": part, "share": share, "low": share - 0.02, "volume": volume, "ratio": share / volume}
        for part, (share, volume) in parts.items()
    ]
    columns = ["part", "share", "low", "volume", "ratio"]
    return words.network_uses(controls, pd.DataFrame(rows, columns=columns))


def test_what_a_network_uses_is_said_where_it_is_better_than_guessing():
    assert "**what it uses cannot be said**" in uses(0.55, face=(0.9, 0.1))
    assert "face" not in uses(0.55, face=(0.9, 0.1))
    said = uses(0.9, (0.85, 40), face=(0.4, 0.1), rim=(0.3, 0.2), inside=(0.2, 0.5), outside=(0.7, 0.6))
    assert said.startswith("**none**: right in 90% of 80 heads")
    assert (
        "lie in the face (40% of the explanation in 10% of the volume) and at the brain's rim (30% of the explanation "
        "in 20% of the volume), more than even maps would" in said
    )
    assert "inside the brain" not in said
    assert "on 40 heads matched in size the network is still right in 85%: **not size alone**" in said
    assert "no less than the network" not in said


def test_size_may_be_all_that_a_network_uses():
    said = uses(0.8, (0.6, 20), alone=0.82, inside=(0.51, 0.5))
    assert "alone is right in 82%, no less than the network" in said
    assert "**size may be all that it uses**" in said
    assert "prefer no part of the head" in said
    assert "was not measured" in uses(0.8, inside=(0.6, 0.5))


def sanity(**verdicts):
    same = {"test": "top-down", "similarity": "spearman", "absolute": False, "value": 0.1}
    rows = [
        {**same, "method": name, "label": name.upper(), "verdict": found} for name, found in verdicts.items()
    ]
    return pd.DataFrame(rows)


def test_who_passes_is_said_by_verdict():
    table = sanity(a="passes", b="fails", c="passes", d="noise", random="noise")
    text = words.redrawn(table, "top-down", "spearman", absolute=False)
    assert text == (
        "*top-down*, by rank correlation of signed values: A and C changed with the weights; "
        "B stayed too much alike (failed); D changed as much when repeated on the same network (noise: raise draws)."
    )
    assert words.redrawn(table, "top-down", "spearman", absolute=True) == ""


def test_a_test_that_noise_passes_is_said_to_be_worthless():
    text = words.redrawn(sanity(a="passes", random="passes"), "top-down", "spearman", absolute=False)
    assert text.endswith("**A map of noise passes too: these verdicts say nothing.**")


def test_maps_that_turned_over_are_named():
    text = words.turned_over({"I*G": 0.93, "LRP": 1.0})
    assert text.startswith(r"Of I\*G and LRP the maps are the same but for the sign")
    assert "0.93 to 1.00" in text
    assert words.turned_over({}) == ""


def test_labels_that_were_not_memorised_are_no_test():
    assert words.memorised(1.0, 24) == (
        "The second network knows 100% of the permuted labels of 24 images by heart."
    )
    assert "there are no verdicts" in words.memorised(0.6, 24)


def test_the_warning_stands_where_verdicts_are():
    assert "do not rank" in words.warning()
