"""`vggrpo fuse`: a LoRA merged into its base model, or written for ComfyUI."""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs the command; what was written is named at the end."""
    import tyro

    from vggrpo.config import FuseSettings

    settings = tyro.cli(FuseSettings, prog="vggrpo fuse", args=list(argv))
    if settings.output.exists():
        raise FileExistsError(f"{settings.output} exists already; name another --output, or remove it")

    from vggrpo.backbones import load_video_backbone
    from vggrpo.backbones.wan import WanBackbone, export_comfy_lora, fuse_loras

    # The base weights in memory only carry the LoRAs' layers: half precision changes nothing that is written.
    backbone = load_video_backbone(settings.base_model, precision="bfloat16")
    if not isinstance(backbone, WanBackbone):
        raise ValueError(f"{settings.base_model} is no Wan model, and only their LoRAs can be merged")
    for folder in settings.lora:
        backbone.check_lora(folder)
    if settings.into == "comfyui":
        backbone.load_loras(settings.loras)
        export_comfy_lora(backbone.transformer, settings.output)
        print(f"the LoRA for ComfyUI is in {settings.output}")
    else:
        fuse_loras(backbone, settings.loras, settings.output)
        print(f"the pipeline is in {settings.output}; WanPipeline.from_pretrained and --base-model open it")
    return 0
