"""The latent geometry model that a training goes on from, where it does not start at the layer search."""

from vggrpo.backbones import VideoBackbone
from vggrpo.config import ConfigError, LGMSettings
from vggrpo.lgm import LatentGeometryModel


def open_initial(settings: LGMSettings, video: VideoBackbone) -> LatentGeometryModel | None:
    """The model `settings.init`, on the video model's device; None if the settings name none.

    Raises:
        ConfigError: if it was made for another autoencoder, geometry model or stitch point.
        FileNotFoundError, CorruptFileError: if the folder holds no such model, or is damaged.
    """
    if settings.init is None:
        return None
    model = LatentGeometryModel.from_pretrained(settings.init)
    try:
        model.check_latents(video.latent_spec, settings.base_model)
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
    return model.to(video.device)
