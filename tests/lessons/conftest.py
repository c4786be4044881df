import numpy as np
import pytest
import torch

from xaitools.lessons import judge

HOSTILE = {
    "None": None,
    "text": "forty-two",
    "nan": float("nan"),
    "infinity": np.inf,
    "huge": 10**400,
    "negative": -3,
    "complex": 1 + 2j,
    "bool": True,
    "bytes": b"\0",
    "nothing": [],
    "ragged": [[1.0, 2.0], [3.0]],
    "dict": {"a": 1},
    "set": {1, 2},
    "object": object(),
    "type": int,
    "function of nothing": lambda: 1,
    "function of anything": lambda *arguments: "text",
    "nan image": torch.full((1, 1, 64, 64), float("nan")),
    "gradient wanted": torch.zeros(1, 1, 64, 64, requires_grad=True),
    "volume": np.zeros((1, 1, 2, 3, 4)),
    "empty tensor": torch.zeros(0),
    "objects": np.array([None, object()], dtype=object),
    "tensors": [torch.zeros(2), torch.zeros(2)],
}
"""Answers that no exercise asks for."""


@pytest.fixture(params=HOSTILE)
def hostile(request):
    return HOSTILE[request.param]


def hint(key, answer, **given):
    """What a wrong answer is told; fails where it is taken for right, or could only be caught."""
    verdict = judge(key, answer, **given)
    assert verdict.kind == "wrong"
    assert "could not read" not in verdict.text
    return verdict.text


def is_right(key, answer, **given):
    verdict = judge(key, answer, **given)
    assert verdict.is_right, verdict
    return True
