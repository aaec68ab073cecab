"""Where a run of `vggrpo train` keeps what its evaluations make."""

from pathlib import Path

REPORT_NAME = "report.html"


def records_file(run: Path, iteration: int) -> Path:
    """The held-out records after `iteration` iterations."""
    return run / "evaluations" / f"step_{iteration:06d}.json"


def iteration_of(path: Path) -> int:
    """The iteration of the file or folder of an evaluation, step_XXXXXX with or without more."""
    return int(path.name.removeprefix("step_").partition(".")[0])


def sample_video(run: Path, iteration: int, key: tuple[str, int]) -> Path:
    """The video of a held-out sample, (prompt_id, index of its noise)."""
    prompt_id, noise = key
    return run / "samples" / f"step_{iteration:06d}" / f"{prompt_id}_{noise}.mp4"
