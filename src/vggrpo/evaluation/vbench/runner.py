"""The program that runs in VBench's environment, and imports nothing of this project.

A request comes as JSON on the standard input: {"dimension": str, "device": str, "videos": [absolute path]};
with "videos" null, the dimension is tried on a clip that the program draws. Answers are lines of JSON on the
standard output, {"video": path, "value": float} or {"video": path, "reason": str}, as soon as they are known;
and {"error": str} last of all, if the dimension itself cannot be had.
"""

import importlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

Measure = Callable[[list[str]], dict[str, float]]
Answer = dict[str, Any]

CHUNK = 32
"""Videos in one call of VBench, which loads its model anew in each."""
SCALES = {"imaging_quality": 0.01}
"""VBench divides this dimension's mean by 100, but not the values of the clips."""


def main() -> None:
    """Answers one request."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # VBench, and the programs that it starts, print much on the standard output.
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        videos = request["videos"]
        if videos is None:
            videos = [draw_clip(os.path.join(folder, "probe.mp4"))]
        try:
            measure = open_dimension(request["dimension"], request["device"], folder)
            any_value = False
            for start in range(0, len(videos), CHUNK):
                chunk = measure_chunk(measure, videos[start : start + CHUNK])
                for answer in chunk:
                    answers.write(json.dumps(answer) + "\n")
                any_value = any_value or any("value" in answer for answer in chunk)
                if not any_value:
                    raise RuntimeError(chunk[0]["reason"])
        except Exception as error:  # noqa: BLE001 - VBench and its downloads raise anything
            answers.write(json.dumps({"error": describe(error)}) + "\n")


def open_dimension(dimension: str, device: str, folder: str) -> Measure:
    """A function from paths to values, after the weights are fetched as VBench fetches them."""
    import torch

    compute = getattr(importlib.import_module(f"vbench.{dimension}"), f"compute_{dimension}")
    submodules = importlib.import_module("vbench.utils").init_submodules([dimension])[dimension]
    info = os.path.join(folder, "videos.json")

    def measure(videos: list[str]) -> dict[str, float]:
        # What VBench writes for a folder in its mode "custom_input".
        entries = [{"prompt_en": "", "dimension": [dimension], "video_list": [video]} for video in videos]
        with open(info, "w", encoding="utf-8") as file:
            json.dump(entries, file)
        with torch.no_grad():
            _, results = compute(info, torch.device(device), submodules)
        scale = SCALES.get(dimension, 1.0)
        return {result["video_path"]: scale * float(result["video_results"]) for result in results}

    return measure


def measure_chunk(measure: Measure, videos: list[str]) -> list[Answer]:
    """An answer for every video; if the call fails for all together, each is tried alone."""
    try:
        values = measure(videos)
    except Exception as error:  # noqa: BLE001 - as above
        if len(videos) > 1:
            return [answer for video in videos for answer in measure_chunk(measure, [video])]
        return [{"video": videos[0], "reason": describe(error)}]
    return [
        {"video": video, "value": values[video]}
        if math.isfinite(values.get(video, math.nan))
        else {"video": video, "reason": "it gives no finite value"}
        for video in videos
    ]


def describe(error: Exception) -> str:
    """The error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def draw_clip(path: str) -> str:
    """A bright square that crosses a dark picture in a second: small, because some dimensions are slow."""
    import cv2
    import numpy as np

    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), 8.0, (128, 128))
    for number in range(8):
        frame = np.full((128, 128, 3), 40, np.uint8)
        frame[48:80, 8 + 10 * number : 40 + 10 * number] = (60, 180, 220)
        writer.write(frame)
    writer.release()
    return path


if __name__ == "__main__":
    main()
