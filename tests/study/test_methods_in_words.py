from xaitools.attribution import METHODS, parse
from xaitools.study import method_list


def test_every_method_is_listed_with_idea_needs_and_option():
    text = " ".join(method_list().split())
    for name, method in METHODS.items():
        assert parse(name).base == name
        assert f" {name}" in text
        for said in (method.idea, method.needs, method.option.meaning if method.option else ""):
            assert " ".join(said.split()) in text, name
    assert all(len(line) <= 120 for line in method_list().splitlines())
