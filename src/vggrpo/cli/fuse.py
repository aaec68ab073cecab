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
    from vggrpo.backbones.pipelines import PipelineBackbone, fuse_loras
    from vggrpo.backbones.wan import WanBackbone, export_comfy_lora

    # The base weights in memory only carry the LoRAs' layers: half precision changes nothing that is written.
    backbone = load_video_backbone(settings.base_model, precision="bfloat16")
    assert isinstance(backbone, PipelineBackbone)
    if settings.into == "comfyui" and not isinstance(backbone, WanBackbone):
        raise ValueError(
            f"{settings.base_model} is no Wan model, and ComfyUI's names are known here of Wan's layers "
            "only; use --into pipeline, or the LoRA itself, which diffusers loads"
        )
    for folder in settings.lora:
        backbone.check_lora(folder)
    if settings.into == "comfyui":
        backbone.load_loras(settings.loras)
        export_comfy_lora(backbone.transformer, settings.output)
        print(f"the LoRA for ComfyUI is in {settings.output}")
    else:
        fuse_loras(backbone, settings.loras, settings.output)
        opener = f"{backbone.pipeline_class.__name__}.from_pretrained"
        print(
            f"the pipeline is in {settings.output}; {opener} opens it, and so does --base-model with a "
            "--recipe for its family"
        )
    return 0
