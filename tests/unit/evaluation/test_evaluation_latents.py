import numpy as np
import pytest
import torch

from vggrpo.evaluation import LatentProfile, latent_moments, latent_shift


@pytest.fixture
def smooth():
    """Latents [6, 3, 2, 24, 32] whose neighbours are alike, channels with means and scales of their own."""
    coarse = torch.randn(6 * 3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, (24, 32), mode="bilinear").unflatten(0, (6, 3))
    return fine * torch.tensor([1.0, 0.5, 2.0]).view(3, 1, 1, 1) + torch.tensor([0.0, 1.0, -1.0]).view(
        3, 1, 1, 1
    )


def profile(latents):
    return LatentProfile.of({name: moment.numpy() for name, moment in latent_moments(latents).items()})


def test_a_profile_is_what_numpy_says(smooth):
    ours, channels = profile(smooth), smooth.double().movedim(1, 0).flatten(1).numpy()
    np.testing.assert_allclose(ours.mean, channels.mean(1), rtol=1e-6)
    np.testing.assert_allclose(ours.std, channels.std(1), rtol=1e-6)
    values = smooth.double().numpy()
    for c in range(3):
        down = values[:, c, :, 1:] - values[:, c, :, :-1]
        right = values[:, c, ..., 1:] - values[:, c, ..., :-1]
        steps = np.concatenate([down.ravel(), right.ravel()])
        assert ours.roughness[c] == pytest.approx(np.sqrt((steps**2).mean()), rel=1e-5)


def test_extreme_values_are_counted_on_both_sides():
    latents = torch.zeros(1, 2, 1, 5, 5)
    latents[0, 0, 0, 0, :3] = torch.tensor([3.1, -3.1, 2.9])
    assert latent_moments(latents)["extreme"].item() == pytest.approx(2 / 50)


def test_moments_of_equal_sets_average_to_those_of_all(smooth):
    whole, first, second = (latent_moments(part) for part in (smooth, smooth[:3], smooth[3:]))
    for name, moment in whole.items():
        torch.testing.assert_close((first[name] + second[name]) / 2, moment)


def test_shift_is_none_to_itself_and_that_of_the_mean(smooth):
    reference = profile(smooth)
    assert latent_shift(reference, reference) == 0
    scale = float(np.sqrt((reference.std**2).mean()))
    assert latent_shift(reference, profile(smooth + 0.3)) == pytest.approx(0.3 / scale, rel=1e-4)


def test_white_noise_moves_the_shift_by_what_theory_says(smooth):
    """Independent noise of std e makes s sqrt(s^2 + e^2) and g sqrt(g^2 + 2 e^2)."""
    reference, e = profile(smooth), 0.2
    noisy = smooth + e * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(1))
    s, g = np.hypot(reference.std, e), np.hypot(reference.roughness, e * np.sqrt(2))
    squares = (s - reference.std) ** 2 + (g - reference.roughness) ** 2
    expected = np.sqrt(squares.mean() / (reference.std**2).mean())
    assert latent_shift(reference, profile(noisy)) == pytest.approx(expected, rel=0.05)
    without_roughness = np.sqrt(((s - reference.std) ** 2).mean() / (reference.std**2).mean())
    assert expected > 3 * without_roughness, "the roughness is what sees noise"


def test_white_noise_is_as_rough_as_can_be():
    noise = profile(torch.randn(8, 2, 4, 32, 32, generator=torch.Generator().manual_seed(2)))
    assert noise.overall_roughness == pytest.approx(np.sqrt(2), rel=0.01)


def test_a_constant_reference_has_no_unit(smooth):
    assert np.isnan(latent_shift(profile(torch.full_like(smooth, 0.5)), profile(smooth)))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 3, 1, 1, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"latents have shape \[2, 3, .*expected \[N, C, T, H, W\]"):
        latent_moments(torch.zeros(shape))
