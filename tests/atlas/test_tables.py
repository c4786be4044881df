import numpy as np
import pandas as pd
import pytest
import torch

from xaitools.atlas import Atlas, region_table, regions_touched
from xaitools.errors import DataError, ParameterError, ShapeError

AFFINE = np.array([[2.0, 0, 0, -7], [0, 2, 0, -9], [0, 0, 2, -5], [0, 0, 0, 1]])
NAMES = {3: "third", 255: "last of a byte", 2001: "beyond a byte", 70000: "beyond a short"}
SHAPE = (7, 6, 5)


def make_atlas(seed=0, names=NAMES, affine=AFFINE):
    rng = np.random.default_rng(seed)
    return Atlas(rng.choice([0, 0, *names], SHAPE).astype(np.int32), affine, names, source="random")


def in_regions(maps, labels, names, absolute=True):
    """Sums (n, regions) in float64, voxel by voxel, from the definition."""
    sums = np.zeros((len(maps), len(names)))
    for row, values in zip(sums, maps, strict=True):
        for voxel in np.ndindex(labels.shape):
            if labels[voxel] in names:
                value = float(values[voxel])
                row[sorted(names).index(labels[voxel])] += abs(value) if absolute else value
    return sums


def column(table, name, n):
    return table[name].to_numpy().reshape(n, -1)


@pytest.mark.parametrize("absolute", [True, False])
def test_agrees_with_the_definitions(absolute):
    atlas = make_atlas()
    rng = np.random.default_rng(1)
    maps, controls = rng.standard_normal((3, *SHAPE)).astype(np.float32), rng.standard_normal((5, *SHAPE))
    table = region_table(maps, atlas, absolute=absolute, controls=controls, affine=AFFINE)
    sums = in_regions(maps, atlas.labels, NAMES, absolute)
    sizes = np.array([(atlas.labels == index).sum() for index in sorted(NAMES)])
    reference = in_regions(controls, atlas.labels, NAMES, absolute).sum(axis=0) / 5
    np.testing.assert_allclose(column(table, "sum", 3), sums, rtol=1e-12)
    np.testing.assert_array_equal(column(table, "n_voxels", 3), np.tile(sizes, (3, 1)))
    np.testing.assert_allclose(column(table, "density", 3), sums / sizes, rtol=1e-12)
    np.testing.assert_allclose(column(table, "gain", 3), sums / reference, rtol=1e-12)


def test_the_table_is_tidy():
    table = region_table(np.ones((2, *SHAPE)), make_atlas())
    assert list(table.columns) == ["map", "region", "index", "n_voxels", "sum", "density"]
    assert table["map"].tolist() == [0] * 4 + [1] * 4
    assert table["index"].tolist() == [3, 255, 2001, 70000] * 2
    assert table["region"].tolist() == list(NAMES.values()) * 2
    assert (table["sum"] == table["n_voxels"]).all()
    assert (table["density"] == 1).all()


def test_sums_over_all_regions_are_the_sum_inside():
    atlas, maps = make_atlas(), np.random.default_rng(2).random((1, *SHAPE))
    assert region_table(maps, atlas)["sum"].sum() == pytest.approx(maps[0][atlas.labels > 0].sum(), rel=1e-12)


@pytest.mark.parametrize(
    "form",
    [
        lambda maps: maps[:, None],
        torch.from_numpy,
        lambda maps: torch.from_numpy(maps)[:, None].requires_grad_(),
        lambda maps: np.asfortranarray(maps),
        lambda maps: maps[:, ::-1][:, ::-1],
    ],
    ids=["with a channel", "tensor", "tensor with a gradient", "Fortran order", "a view"],
)
def test_every_form_of_the_maps_gives_the_same(form):
    maps = np.random.default_rng(3).standard_normal((2, *SHAPE)).astype(np.float32)
    pd.testing.assert_frame_equal(region_table(form(maps), make_atlas()), region_table(maps, make_atlas()))


def test_maps_by_method_make_one_table():
    rng, atlas = np.random.default_rng(4), make_atlas()
    maps, controls = ({name: rng.random((2, *SHAPE)) for name in ("gradient", "lrp")} for _ in range(2))
    table = region_table(maps, atlas, absolute=False, controls=controls)
    assert list(table["method"].unique()) == list(maps)
    for name, rows in table.groupby("method"):
        expected = region_table(maps[name], atlas, absolute=False, controls=controls[name])
        pd.testing.assert_frame_equal(rows.drop(columns="method").reset_index(drop=True), expected)
    assert "gain" not in region_table(maps, atlas)
    for wrong in [(maps, controls["lrp"]), (maps["lrp"], controls), (maps, {"lrp": controls["lrp"]})]:
        with pytest.raises(ParameterError, match="expected both by the same methods"):
            region_table(wrong[0], atlas, controls=wrong[1])


def test_one_map_may_come_alone_and_in_bfloat16():
    values = torch.arange(np.prod(SHAPE)).reshape(SHAPE).remainder(7).to(torch.bfloat16)
    expected = in_regions(values.float().numpy()[None], make_atlas().labels, NAMES)
    np.testing.assert_array_equal(region_table(values, make_atlas())["sum"], expected[0])


def test_small_values_are_not_lost_beside_many():
    atlas = Atlas(np.ones((200, 200, 100), np.int32), AFFINE, {1: "all"})
    maps = np.full((200, 200, 100), 0.1, np.float32)
    assert region_table(maps, atlas)["sum"][0] == pytest.approx(4e6 * float(np.float32(0.1)), rel=1e-9)


def test_a_region_without_voxels_has_sum_0_and_no_density():
    atlas = make_atlas(names=NAMES)
    empty = Atlas(np.where(atlas.labels == 255, 0, atlas.labels), AFFINE, NAMES)
    row = region_table(np.ones(SHAPE), empty).set_index("index").loc[255]
    assert (row["n_voxels"], row["sum"]) == (0, 0)
    assert np.isnan(row["density"])


def test_gain_where_controls_have_nothing():
    atlas = Atlas(np.array([1, 2, 3]).reshape(3, 1, 1), AFFINE, {1: "a", 2: "b", 3: "c"})
    maps, controls = np.array([1.0, 0, 6]).reshape(3, 1, 1), np.array([0.0, 0, 2]).reshape(3, 1, 1)
    np.testing.assert_array_equal(region_table(maps, atlas, controls=controls)["gain"], [np.inf, np.nan, 3])


@pytest.mark.parametrize(
    ("maps", "options", "error", "message"),
    [
        (np.ones((2, 6, 7, 5)), {}, ShapeError, r"maps of shape \(2, 6, 7, 5\).*atlas.on_grid"),
        (np.ones((2, 3, *SHAPE)), {}, ShapeError, "reduce their channels to one"),
        (np.ones((7, 6)), {}, ShapeError, "not on the same grid"),
        (np.ones((0, *SHAPE)), {}, DataError, "there is no map"),
        (
            np.stack([np.ones(SHAPE), np.full(SHAPE, np.nan)]),
            {},
            DataError,
            "map 2 of 2 has NaN or infinite values",
        ),
        (
            np.ones(SHAPE),
            {"affine": np.diag([-2.0, 2, 2, 1])},
            ShapeError,
            "atlas with affine.*atlas.on_grid",
        ),
        (np.ones(SHAPE), {"affine": np.eye(3)}, ShapeError, "expected an invertible 4 x 4 matrix"),
        (np.ones(SHAPE), {"controls": np.ones((2, 2, 2))}, ShapeError, "not on the same grid"),
        (np.ones(SHAPE), {"controls": np.full(SHAPE, np.inf)}, DataError, "NaN or infinite"),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps, options, error, message):
    with pytest.raises(error, match=message):
        region_table(maps, make_atlas(), **options)


@pytest.mark.parametrize("value", [np.float32(1e30), np.float16(6e4), np.float64(1e200)])
def test_large_values_are_no_infinite_ones(value):
    atlas = make_atlas()
    table = region_table(np.full(SHAPE, value), atlas)
    np.testing.assert_allclose(table["sum"], table["n_voxels"] * float(value), rtol=1e-6)
    spoiled = np.full(SHAPE, value)
    spoiled[0, 0, 0] = -np.inf
    with pytest.raises(DataError, match="NaN or infinite"):
        region_table(spoiled, atlas)


def test_regions_touched_by_a_mask():
    labels = np.zeros((4, 5, 6), dtype=np.int32)
    labels[0], labels[1], labels[2, 0, 0] = 3, 7, 9
    atlas = Atlas(labels, AFFINE, {3: "a", 7: "b", 9: "c", 11: "not here"})
    mask = np.zeros(labels.shape, dtype=bool)
    mask[0, :, 0] = mask[2, 0, 0] = True
    assert regions_touched(atlas, mask) == ["a", "c"]
    assert regions_touched(atlas, mask, share=0.2) == ["c"]
    mask[1, 0, :3] = True
    assert regions_touched(atlas, mask) == ["a", "b", "c"]
    with pytest.raises(ShapeError, match="expected one grid"):
        regions_touched(atlas, mask[1:])
    with pytest.raises(ParameterError, match="share=0"):
        regions_touched(atlas, mask, share=0)
