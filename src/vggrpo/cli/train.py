"""`vggrpo train`: aligns a video model with the geometry rewards."""

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import TrainSettings


def main(argv: list[str]) -> int:
    """Runs the command; the run folder is named at the end."""
    settings = parse_with_recipe(TrainSettings, "train", argv)
    from vggrpo.training.align import align

    lora = align(settings)
    print(f"the aligned policy's LoRA is in {lora}; load it with WanPipeline.load_lora_weights")
    return 0
