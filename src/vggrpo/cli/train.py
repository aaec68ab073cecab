"""`vggrpo train`: aligns a video model with the geometry rewards."""

from vggrpo.cli.plans import show_plan
from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import TrainSettings
from vggrpo.config.plan import TrainFlags, run_settings


def main(argv: list[str]) -> int:
    """Runs the command, or prints its plan; the run folder is named at the end."""
    flags = parse_with_recipe(TrainFlags, "train", argv)
    settings = run_settings(flags, TrainSettings)
    if flags.dry_run:
        return show_plan(flags, settings, flags.gpus or 1)
    from vggrpo.training.align import align
    from vggrpo.training.run_files import REPORT_NAME

    lora = align(settings)
    run = lora.parent
    print(f"the report is {run / REPORT_NAME}, the sample videos are in {run / 'samples'}")
    print(f"the aligned policy's LoRA is in {lora}; the base pipeline's load_lora_weights loads it")
    return 0
