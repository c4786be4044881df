import pytest

from xaitools.data.agents import agent_kind

KINDS = {
    "vessels": [
        "OMNIPAQUE",
        "Omnipaque 350",
        "ISOVUE-370",
        "100 CC OMNIPAQUE 300",
        "Ultravist 370 mg/ml",
        "80ml Optiray 320",
        "Iohexol",
        "IOPAMIDOL 76%",
        "nonionic Iomeron",
        "APPLIED",
        "CONTRAST",
        "with contrast",
        "W/ CONTRAST",
        "yes",
        "1",
        "IV",
        "i.v. contrast",
        "IV & ORAL",
        "oral and i.v.",
        "Telebrix i.v.",
        "CE",
    ],
    "none": [
        "NONE",
        "no",
        "N",
        "0",
        "WITHOUT CONTRAST",
        "W/O",
        "w/o contrast",
        "NON CONTRAST",
        "non-contrast",
        "NOT APPLIED",
        "no IV contrast",
        "Unenhanced",
        "nativ",
        "ohne KM",
        "contrast not given",
    ],
    "oral": [
        "ORAL",
        "oral contrast",
        "Gastrografin",
        "READI-CAT 2",
        "E-Z-CAT",
        "Barium p.o.",
        "rectal",
        "WATER",
    ],
    "unknown": [
        "N/A",
        "NA",
        "UNKNOWN",
        "-",
        "?",
        "350",
        "not known",
        "NO ORAL",
        "no oral, Omnipaque i.v.",
        "no Omnipaque",
        "NON-IONIC",
        "oral Omnipaque",
        "Telebrix",
        "Doe^John",
        "Omnipaque?? see note",
        "Gadovist",
        "contrast allergy",
    ],
    "empty": ["", "  "],
}


@pytest.mark.parametrize(("kind", "agent"), [(kind, agent) for kind in KINDS for agent in KINDS[kind]])
def test_what_the_words_for_an_agent_say(kind, agent):
    assert agent_kind(agent) == kind


def test_an_absent_tag_is_not_an_empty_one():
    assert (agent_kind(None), agent_kind(""), agent_kind("  ")) == ("absent", "empty", "empty")
    assert (
        agent_kind(None, route="IV")
        == agent_kind(None, volume=80.0)
        == agent_kind("", volume=80.0)
        == "unknown"
    )


@pytest.mark.parametrize(
    ("agent", "route", "volume", "kind"),
    [
        ("Omnipaque 350", "IV", 100, "vessels"),
        ("Omnipaque", "ORAL", 500, "oral"),
        ("Omnipaque", "IV and oral", 0, "vessels"),
        ("Telebrix", "Intravenous route", 0, "vessels"),
        ("oral contrast", "IV", 0, "unknown"),
        ("IV contrast", "ORAL", 0, "unknown"),
        ("IV contrast", "somewhere", 0, "unknown"),
        ("NONE", "IV", 0, "unknown"),
        ("NONE", "", 80, "unknown"),
        ("", "IV", 0, "unknown"),
        ("", "", 80, "unknown"),
        ("", "", 0, "empty"),
    ],
)
def test_route_and_volume_say_more_or_contradict(agent, route, volume, kind):
    assert agent_kind(agent, route, volume) == kind
