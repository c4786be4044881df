import pandas as pd

from xaitools.study import beside_published, counterparts, method_table

PAPER = ["input_x_gradient", "lrp[alpha1_beta0]", "occlusion[5]"]


def test_occlusion_of_another_size_is_the_same_method():
    names = ["lrp[alpha1_beta0]", "occlusion[3]"]
    assert counterparts(PAPER, names) == {
        "lrp[alpha1_beta0]": "lrp[alpha1_beta0]",
        "occlusion[5]": "occlusion[3]",
    }


def test_another_rule_or_modifier_is_another_method():
    assert counterparts(PAPER, ["lrp[epsilon]", "occlusion[3]+absolute", "input_x_gradient+smoothgrad"]) == {}


def test_of_two_sizes_neither_stands_for_the_published_one_unless_it_is_that():
    assert counterparts(PAPER, ["occlusion[3]", "occlusion[4]"]) == {}
    assert counterparts(PAPER, ["occlusion[3]", "occlusion[5]"]) == {"occlusion[5]": "occlusion[5]"}


def test_published_numbers_stand_in_the_row_of_their_method():
    names = ["occlusion[3]", "lrp[epsilon]"]
    values = pd.DataFrame({"L2": [1.23, 4.0], "cosine": [0.5, 0.6]}, index=names)
    values.loc["noise"] = [9.0, 0.0]
    printed = {"L2": {"occlusion[5]": 25553.0, "lrp[alpha1_beta0]": 2241.0}}
    stands_for = counterparts(printed["L2"], names)
    table = beside_published(values, method_table(names), printed, stands_for)
    assert table.to_dict("list") == {
        "method": ["OCC", "LRP-ε", "noise"],
        "L2": ["1.2", "4.0", "9.0"],
        "published, L2": ["25553", "", ""],
        "cosine": ["0.5", "0.6", "0.0"],
    }
