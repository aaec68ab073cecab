"""The table of the noise tuning fits a terminal and says what was found; the picture draws every cell."""

import pytest
from matplotlib.image import imread
from rich.console import Console

from vggrpo.config import ODE, NoiseCell
from vggrpo.evaluation import Interval
from vggrpo.training.tune_noise_figures import NoiseRow, NoiseTuning
from vggrpo.training.tune_noise_plot import noise_table, plot_noise

NAMES = ("score/std", "exploration", "loss", "latent/shift", "latent/roughness", "latent/extreme")


def row(cell, loss=0.25, invalid=0.0):
    values = dict.fromkeys(NAMES, 0.125) | {"loss": loss, "informative": 1.0, "invalid": invalid}
    return NoiseRow(cell, {name: Interval(v, v - 0.01, v + 0.01, 8) for name, v in values.items()})


@pytest.fixture
def tuning():
    cells = [NoiseCell("dance_sde", 0.25, 0, 12), NoiseCell("cps", 1.0, 2, 1)]
    return NoiseTuning((row(ODE, 0.0), row(cells[0]), row(cells[1], loss=-1.5)), 0.5, 0.2)


def printed(tuning, width=80):
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(noise_table(tuning))
    return captured.get().splitlines()


def test_the_table_fits_80_columns_uncut(tuning):
    lines = printed(tuning)
    assert not any("\u2026" in line for line in lines)
    ode, dance, cps = (line.split() for line in lines[-3:])
    assert ode[0] == "ODE"
    assert dance[:3] == ["dance_sde", "0.25", "0-11"]
    assert dance[3:7] == ["0.12", "0.12", "0.25", "0.26"]
    assert cps[:4] == ["*", "cps", "1", "2"]
    assert "failed" not in " ".join(lines)


def test_failed_samples_are_shown_if_there_are_any(tuning):
    failing = NoiseTuning((*tuning.rows, row(NoiseCell("cps", 0.5, 0, 3), invalid=0.04)), 0.5, 0.2)
    lines = printed(failing, 90)
    assert "failed" in " ".join(lines)
    assert lines[-1].split()[-1] == "4%"


def test_the_picture_rings_the_recommended_cell(tuning, tmp_path):
    """Without a recommendation there is no ring, which is all that differs below the title."""
    plot_noise(tuning, tmp_path / "with.png")
    assert tuning.recommended is not None
    none = NoiseTuning(tuning.rows, 0.5, 0.01)
    assert none.recommended is None
    plot_noise(none, tmp_path / "without.png")
    pictures = [imread(tmp_path / f"{name}.png") for name in ("with", "without")]
    dark = [((picture[60:, :, :3] < 0.2).all(axis=-1)).sum() for picture in pictures]
    assert dark[0] > dark[1]
