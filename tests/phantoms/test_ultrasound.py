import numpy as np
import pytest

from xaitools.phantoms.ultrasound import BEAM_WIDTHS, CYCLE, PULSE, envelope


def envelope_by_sums(scatterers, depth, beam):
    """|sum over scatterers of amplitude x pulse x carrier x beam profile|, both of unit energy."""
    n_depths, n_beams = scatterers.shape
    time = np.arange(-7, 8)
    pulse_energy = np.exp(-(time**2) / PULSE**2).sum()
    total = 0j
    for row in range(max(depth - 7, 0), min(depth + 8, n_depths)):
        width = BEAM_WIDTHS[0] + (BEAM_WIDTHS[1] - BEAM_WIDTHS[0]) * row / (n_depths - 1)
        beam_energy = np.exp(-(np.arange(-5, 6) ** 2) / width**2).sum()
        lag = depth - row
        pulse = np.exp(-(lag**2) / (2 * PULSE**2) + 2j * np.pi * lag / CYCLE) / np.sqrt(pulse_energy)
        for column in range(max(beam - 5, 0), min(beam + 6, n_beams)):
            profile = np.exp(-((beam - column) ** 2) / (2 * width**2)) / np.sqrt(beam_energy)
            total += scatterers[row, column] * pulse * profile
    return abs(total)


def test_the_envelope_is_the_magnitude_of_the_sum_over_scatterers():
    scatterers = np.random.default_rng(0).standard_normal((60, 40)).astype(np.float32)
    echo = envelope(scatterers)
    assert echo.shape == (60, 40)
    for depth, beam in ((0, 0), (3, 38), (30, 20), (59, 39), (45, 2)):
        assert echo[depth, beam] == pytest.approx(envelope_by_sums(scatterers, depth, beam), rel=1e-4)


def test_dense_scatterers_give_fully_developed_speckle():
    echo = envelope(np.random.default_rng(0).standard_normal((352, 600)).astype(np.float32))[20:-20, 20:-20]
    assert (echo**2).mean() == pytest.approx(1, rel=0.05)
    assert echo.mean() / echo.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.04)  # Rayleigh: 1.91
    intensity = echo.ravel() ** 2
    assert (intensity > 3).mean() == pytest.approx(np.exp(-3), rel=0.15)


def test_the_beam_widens_with_depth_and_the_pulse_does_not():
    points = np.zeros((352, 41), dtype=np.float32)
    points[[40, 310], 20] = 1
    echo = envelope(points)
    across = [np.average((np.arange(41) - 20) ** 2, weights=echo[row]) for row in (40, 310)]
    along = [np.average(np.arange(-9, 10) ** 2, weights=echo[row - 9 : row + 10, 20]) for row in (40, 310)]
    assert across[1] > 2 * across[0]
    assert along[1] == pytest.approx(along[0], rel=1e-3)
