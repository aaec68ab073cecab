"""`vggrpo world train-video`: the family's video model."""

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import VideoSettings


def main(argv: list[str]) -> int:
    """Runs the command; the model's folder is named at the end."""
    settings = parse_with_recipe(VideoSettings, "train-video", argv, command="world train-video")
    from vggrpo.training.pretrain.video import train_video

    print(f"the video model is in {train_video(settings)}")
    return 0
