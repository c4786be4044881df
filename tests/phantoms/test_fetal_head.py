import numpy as np
import pytest

from xaitools.phantoms.fetal_head import Head, draw_head
from xaitools.phantoms.ultrasound import PICTURE

HEAD = Head((410.0, 260.0), (240.0, 185.0), 0.3, 0.13)


def heads(n, seed=0):
    return [
        draw_head(np.random.default_rng((seed, i)), np.random.default_rng((seed, i, 0))) for i in range(n)
    ]


def test_the_label_is_the_perimeter_of_the_outline():
    polygon = HEAD.outline(20000)
    assert HEAD.perimeter == pytest.approx(
        np.hypot(*(polygon - np.roll(polygon, 1, axis=0)).T).sum(), rel=1e-6
    )
    assert Head((0, 0), (100, 100), 0, 0.1).perimeter == pytest.approx(200 * np.pi, rel=1e-12)


def test_the_outline_is_where_the_local_radius_is_one():
    rows, columns = HEAD.outline().T
    u, v = HEAD.local(columns, rows)
    np.testing.assert_allclose(np.hypot(u, v), 1, atol=1e-5)
    center_and_tip = np.array([[410, 410 + 240 * np.cos(0.3)], [260, 260 + 240 * np.sin(0.3)]])
    np.testing.assert_allclose(HEAD.local(*center_and_tip), [[0, 1], [0, 0]], atol=1e-5)


def test_heads_are_distributed_as_in_hc18():
    drawn = heads(600)
    perimeter, pixel, angle = (
        np.array([getattr(head, what) for head in drawn]) for what in ("perimeter", "pixel", "angle")
    )
    mm, ratio = perimeter * pixel, np.array([head.axes[1] / head.axes[0] for head in drawn])
    assert 80 - 1e-6 <= mm.min() < 90
    assert 300 < mm.max() <= 350 + 1e-6
    assert 0.05 < pixel.min() < pixel.max() < 0.3
    assert 500 < perimeter.min() < 800
    assert 1500 < perimeter.max() < 1700
    assert np.corrcoef(mm, pixel)[0, 1] > 0.5
    assert 0.3 < np.corrcoef(mm, perimeter)[0, 1] < 0.8
    assert 0.7 <= ratio.min() < 0.72 < 0.83 < ratio.max() <= 0.85
    assert (np.abs(angle) > 1).mean() > 0.02
    outlines = np.stack([head.outline(64) for head in drawn])
    assert outlines.min() > 0
    assert (outlines < PICTURE).all()
