"""The latent geometry model that a training goes on from, where it does not start at the layer search."""

from vggrpo.backbones import LatentSpec
from vggrpo.config import ConfigError, LGMSettings
from vggrpo.lgm import LatentGeometryModel


def open_initial(settings: LGMSettings, latent_spec: LatentSpec) -> LatentGeometryModel | None:
    """The model `settings.init`, on the CPU; None if the settings name none. `latent_spec` is the video
    model's.

    Raises:
        ConfigError: if it was made for another autoencoder, geometry model or stitch point.
        FileNotFoundError, CorruptFileError: if the folder holds no such model, or is damaged.
    """
    if settings.init is None:
        return None
    model = LatentGeometryModel.from_pretrained(settings.init)
    try:
        model.check_latents(latent_spec, settings.base_model)
    except ValueError as error:
        raise ConfigError(f"init is {settings.init}: {error}") from error
    expected = {
        "geometry_model": (model.geometry_model, settings.geometry_model),
        "stitch_point": (model.stitch_point, settings.stitch_point),
    }
    for name, (own, wanted) in expected.items():
        if wanted not in (own, "auto"):
            raise ConfigError(
                f"{name} is {wanted}, but init, {settings.init}, was made with {own}; name that, or leave "
                "init out"
            )
    return model
