"""`vggrpo reconstruct`."""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    from vggrpo.cli.recipes import parse_with_recipe
    from vggrpo.config import ConfigError, ReconstructSettings

    settings = parse_with_recipe(ReconstructSettings, "reconstruct", argv)
    if not settings.input.is_file():
        raise ConfigError(f"there is no file {settings.input}; give a video, or the latents of one")

    import torch

    from vggrpo.training.rewards import build_rewards
    from vggrpo.training.runtime import choose_device
    from vggrpo.viewer.export_points import PointSelection
    from vggrpo.viewer.export_scene import check_exports, export_scene
    from vggrpo.viewer.reconstruction import reconstruct

    check_exports(settings.output, settings.export, settings.overwrite)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    scene = reconstruct(settings, build_rewards(settings.rewards), choose_device(settings.device))
    selection = PointSelection(settings.confidence_quantile, settings.pixel_step)
    export_scene(settings.output, scene, settings.export, selection, settings.overwrite)
    geometry = scene.geometry
    print(f"{scene.num_views} views of {geometry.height}x{geometry.width} pixels: {settings.output}")
    for name, reward in scene.rewards.items():
        print(f"{name}: {reward.note or format(reward.value, '.4f')}")
    if geometry.static_mask is None:
        print("the geometry model has no scene flow: what moves is taken for static")
    return 0
