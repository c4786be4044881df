import torch

from xaitools.attribution._smoothing import SMOOTHINGS, Moments


def test_moments_equal_their_definitions() -> None:
    maps = 100 + torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0))
    moments = Moments()
    for map_ in maps:
        moments.add(map_)
    exact = maps.double()
    expected = {
        "smoothgrad": exact.mean(0),
        "smoothgrad_squared": (exact**2).mean(0),
        "vargrad": ((exact - exact.mean(0)) ** 2).mean(0),
    }
    assert SMOOTHINGS.keys() == expected.keys()
    for name, function in SMOOTHINGS.items():
        torch.testing.assert_close(function(moments).double(), expected[name], rtol=1e-4, atol=1e-5)
