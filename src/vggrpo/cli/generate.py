"""`vggrpo generate`."""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    from vggrpo.cli.recipes import parse_with_recipe
    from vggrpo.config import ConfigError, CorruptFileError, GenerateSettings

    settings = parse_with_recipe(GenerateSettings, "generate", argv)

    from importlib.metadata import version

    import torch

    from vggrpo.backbones import load_video_backbone
    from vggrpo.backbones.wan import lora_file
    from vggrpo.data import SamplingSettings, make_videos, order_videos, read_prompts, unfinished
    from vggrpo.io import file_sha256

    prompts = read_prompts(settings.prompts)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone = load_video_backbone(settings.base_model, device=device, precision=settings.precision)
    try:
        backbone.latent_shape(settings.num_frames, settings.height, settings.width)
    except CorruptFileError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    model: dict[str, object] = dict(backbone.identity())
    if settings.lora is not None:
        model["lora"] = {"sha256": file_sha256(lora_file(settings.lora)), "scale": settings.lora_scale}
    sampling = SamplingSettings(
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        fps=settings.fps,
        infer_steps=settings.infer_steps,
        cfg_scale=settings.cfg_scale,
        negative_prompt=settings.negative_prompt,
    )
    orders = order_videos(prompts, settings.seeds, settings.output, sampling, model)
    missing = orders if settings.overwrite else unfinished(orders, settings.save_latents)
    if missing:
        if settings.lora is not None:
            backbone.load_lora(settings.lora, settings.lora_scale)
        make_videos(
            backbone,
            missing,
            sampling,
            {name: version(name) for name in ("vggrpo", "torch", "diffusers", "transformers", "av")},
            batch_size=settings.batch_size,
            save_latents=settings.save_latents,
        )
    kept = len(orders) - len(missing)
    print(f"{len(missing)} videos made, {kept} were there already: {settings.output}")
    return 0
