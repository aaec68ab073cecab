"""The engine: resume by file and settings, bad files among good ones, models in batches, workers."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console

from vggrpo.config import ConfigError, CorruptFileError, EvaluateSettings, RunError
from vggrpo.evaluation.evaluated import read_evaluation
from vggrpo.evaluation.folder_report import write_folder_report
from vggrpo.evaluation.intervals import bootstrap_mean, paired_difference
from vggrpo.evaluation.videos import (
    Clip,
    ClipResults,
    DynamicsMetric,
    EngineSettings,
    FileMetric,
    FrameMetric,
    Measured,
    MetricSet,
    ModelMetric,
    NotRun,
    Video,
    evaluate_folder,
    find_clips,
    measure_clips,
    summary_table,
)
from vggrpo.evaluation.videos.decoding import decode_clip
from vggrpo.evaluation.videos.pool import run_tasks
from vggrpo.evaluation.videos.worker import Task, Workload
from vggrpo.io import write_video

HERE = EngineSettings(workers=0)
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Brightness(FrameMetric):
    """Mean of the pixels; counts its calls, and fails on white clips."""

    factor: float = 1.0
    calls: list[str] = field(default_factory=list)

    name: ClassVar[str] = "brightness"
    metrics: ClassVar[tuple[str, ...]] = ("brightness",)

    def settings(self) -> Mapping[str, Any]:
        return {"factor": self.factor}

    def compute(self, video: Video, clip: Clip) -> Measured:
        self.calls.append(clip.name)
        if video.frames.min() > 250:
            raise ValueError("nothing but white")
        return Measured({"brightness": float(video.frames.mean()) * self.factor}, ("looked at",))


@dataclass(frozen=True)
class Crash(FrameMetric):
    """Ends the process, as a decoder might, on the clip of that name."""

    victim: str

    name: ClassVar[str] = "crash"
    metrics: ClassVar[tuple[str, ...]] = ("contrast",)

    def settings(self) -> Mapping[str, Any]:
        return {}

    def compute(self, video: Video, clip: Clip) -> Measured:
        if clip.name == self.victim:
            os._exit(3)
        return Measured({"contrast": 1.0})


def first_frame(video: Video, clip: Clip) -> Frames:
    """A preparation."""
    if len(video.frames) < 3:
        raise ValueError("needs 3 frames")
    return video.frames[0]


@dataclass(frozen=True, eq=False)
class FirstFrame(ModelMetric):
    """A model that wants batches of two."""

    batches: list[tuple[int, ...]] = field(default_factory=list)
    batch_size: int = 2

    name: ClassVar[str] = "first"
    metrics: ClassVar[tuple[str, ...]] = ("sharpness",)

    def settings(self) -> Mapping[str, Any]:
        return {"model": "first"}

    @property
    def prepare(self) -> Callable[[Video, Clip], Frames]:
        return first_frame

    def open(self) -> None:
        self.batches.append(())

    def compute(self, prepared: NDArray[Any], clips: Sequence[Clip]) -> list[Measured]:
        self.batches.append(prepared.shape)
        return [Measured({"sharpness": float(image.mean())}) for image in prepared]


@dataclass(frozen=True)
class FromFiles(FileMetric):
    """The size of the file; breaks down after `most` clips."""

    most: int = 100
    seen: list[str] = field(default_factory=list)

    name: ClassVar[str] = "files"
    metrics: ClassVar[tuple[str, ...]] = ("saturation",)

    def settings(self) -> Mapping[str, Any]:
        return {}

    def compute(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, Measured]]:
        for number, clip in enumerate(clips):
            if number == self.most:
                raise RuntimeError("the other environment broke down")
            self.seen.append(clip.name)
            yield clip, Measured({"saturation": float(clip.path.stat().st_size)})


def make_clip(path: Path, level: int = 60, num_frames: int = 4, size: tuple[int, int] = (32, 48)) -> None:
    rng = np.random.default_rng(level)
    frames = np.clip(level + rng.integers(-20, 20, (num_frames, *size, 3)), 0, 255).astype(np.uint8)
    write_video(path, frames, 8.0)


def make_folder(folder: Path, prompts: int = 3, seeds: int = 2, shift: int = 0) -> Path:
    for prompt in range(prompts):
        for seed in range(seeds):
            stem = folder / f"p{prompt}_seed{seed}"
            make_clip(stem.with_suffix(".mp4"), 40 + 30 * prompt + 5 * seed + shift)
            kind = "static" if prompt else "dynamic"
            sidecar = {"prompt": f"prompt {prompt}", "prompt_id": f"p{prompt}", "seed": seed, "kind": kind}
            stem.with_suffix(".json").write_text(json.dumps(sidecar))
    return folder


def values(records: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float | None]:
    return {record["clip"]: record["metrics"][metric] for record in records}


def test_records_hold_what_the_contract_says(tmp_path: Path) -> None:
    clips = find_clips(make_folder(tmp_path / "videos", prompts=1, seeds=1))
    results = ClipResults(tmp_path)
    (record,) = measure_clips(clips, MetricSet((Brightness(),)), results, HERE)
    assert json.loads((tmp_path / "clips.jsonl").read_text()) == record
    assert record["metrics"] == {"brightness": pytest.approx(40, abs=3)}
    assert {name: record[name] for name in ("clip", "path", "status", "reason", "prompt", "prompt_id")} == {
        "clip": "p0_seed0.mp4",
        "path": str(tmp_path / "videos/p0_seed0.mp4"),
        "status": "ok",
        "reason": None,
        "prompt": "prompt 0",
        "prompt_id": "p0",
    }
    assert (record["seed"], record["kind"], record["notes"]) == (0, "dynamic", ["brightness: looked at"])
    assert (record["frames"], record["height"], record["width"], record["fps"]) == (4, 32, 48, 8.0)


def test_finished_clips_are_measured_again_only_if_the_file_or_the_setting_changes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "videos", prompts=2, seeds=1)
    results, clips = ClipResults(tmp_path), find_clips(folder)
    first = measure_clips(clips, MetricSet((Brightness(),)), results, HERE)
    again = Brightness()
    assert measure_clips(clips, MetricSet((again,)), results, HERE) == first
    assert again.calls == []
    make_clip(folder / "p1_seed0.mp4", 200)
    changed = measure_clips(clips, MetricSet((again,)), results, HERE)
    assert again.calls == ["p1_seed0.mp4"]
    assert values(changed, "brightness")["p1_seed0.mp4"] == pytest.approx(200, abs=3)
    other = Brightness(factor=2.0)
    measure_clips(clips, MetricSet((other,)), results, HERE)
    assert other.calls == ["p0_seed0.mp4", "p1_seed0.mp4"]


def test_another_metric_joins_what_was_measured_and_leaving_one_out_keeps_it(tmp_path: Path) -> None:
    clips, results = find_clips(make_folder(tmp_path / "videos", seeds=1)), ClipResults(tmp_path)
    measure_clips(clips, MetricSet((Brightness(),)), results, HERE)
    model, again = FirstFrame(), Brightness()
    both = measure_clips(clips, MetricSet((again, model)), results, HERE)
    assert again.calls == []
    assert set(both[0]["metrics"]) == {"brightness", "sharpness"}
    only = measure_clips(clips, MetricSet((FirstFrame(),)), results, HERE)
    assert set(only[0]["metrics"]) == {"sharpness"}
    assert measure_clips(clips, MetricSet((again, FirstFrame())), results, HERE) == both
    assert again.calls == []


def test_an_interrupted_run_keeps_what_is_finished_and_half_a_line_is_forgotten(tmp_path: Path) -> None:
    clips, results = find_clips(make_folder(tmp_path / "videos", seeds=1)), ClipResults(tmp_path)
    measure_clips(clips[:2], MetricSet((Brightness(),)), results, HERE)
    with results.path.open("a") as file:
        file.write('{"clip": "p2_seed0.mp4", "pa')
    metric = Brightness()
    records = measure_clips(clips, MetricSet((metric,)), results, HERE)
    assert metric.calls == ["p2_seed0.mp4"]
    assert len(results.load()) == len(records) == 3
    results.path.write_text('{"no": "clip"}\n{}\n')
    with pytest.raises(CorruptFileError, match=r"line 1 of .* is no clip's record"):
        results.load()


def test_a_line_is_never_glued_onto_half_a_line(tmp_path: Path) -> None:
    results = ClipResults(tmp_path)
    for name in ("a", "b", "c"):
        results.append({"clip": name, "prompt": "ä"})
        half = json.dumps({"clip": "z", "prompt": "ä"}, ensure_ascii=False).encode().split(b"\xa4")[0]
        with results.path.open("ab") as file:
            file.write(half)
        assert list(results.load()) == ["a", "b", "c"][: "abc".index(name) + 1]
    results.append({"clip": "d"})
    assert results.path.read_text("utf-8").count("\n") == len(results.load()) == 4


def test_models_see_full_batches_of_one_shape_and_are_opened_once(tmp_path: Path) -> None:
    for number, size in enumerate([(32, 48), (32, 48), (48, 32), (32, 48)]):
        make_clip(tmp_path / "videos" / f"{number}.mp4", 50 + number, size=size)
    make_clip(tmp_path / "videos" / "4.mp4", num_frames=2)
    model = FirstFrame()
    records = measure_clips(
        find_clips(tmp_path / "videos"), MetricSet((Brightness(), model)), ClipResults(tmp_path), HERE
    )
    assert model.batches == [(), (2, 32, 48, 3), (1, 48, 32, 3), (1, 32, 48, 3)]
    assert values(records, "sharpness")["4.mp4"] is None
    assert records[4]["status"] == "ok"
    assert "first: needs 3 frames" in records[4]["notes"]
    assert values(records, "sharpness")["2.mp4"] == pytest.approx(52, abs=4)


def test_a_model_is_not_opened_for_nothing(tmp_path: Path) -> None:
    clips, results = find_clips(make_folder(tmp_path / "videos", seeds=1)), ClipResults(tmp_path)
    measure_clips(clips, MetricSet((FirstFrame(),)), results, HERE)
    model = FirstFrame()
    measure_clips(clips, MetricSet((model,)), results, HERE)
    assert model.batches == []


def test_what_a_file_metric_found_before_it_broke_down_is_kept(tmp_path: Path) -> None:
    clips, results = find_clips(make_folder(tmp_path / "videos", seeds=1)), ClipResults(tmp_path)
    with pytest.raises(RuntimeError, match="broke down"):
        measure_clips(clips, MetricSet((Brightness(), FromFiles(most=2))), results, HERE)
    metric = FromFiles()
    records = measure_clips(clips, MetricSet((Brightness(), metric)), results, HERE)
    assert metric.seen == ["p2_seed0.mp4"]
    assert all(record["metrics"]["saturation"] > 0 for record in records)


def test_a_value_that_a_metric_cannot_give_is_null_with_the_reason(tmp_path: Path) -> None:
    write_video(tmp_path / "white.mp4", np.full((4, 32, 48, 3), 255, np.uint8), 8.0)
    (record,) = measure_clips(find_clips(tmp_path), MetricSet((Brightness(),)), ClipResults(tmp_path), HERE)
    assert record["metrics"] == {"brightness": None}
    assert record["notes"] == ["brightness: failed (nothing but white)"]


def write_variable_rate(path: Path, times: Sequence[int]) -> None:
    """An mp4 whose frames are shown at these milliseconds."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_odd_size(path: Path) -> None:
    """A video of 35 x 49 pixels, which yuv420p cannot hold."""
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 49, 35, "bgr0"
        for number in range(4):
            image = np.full((35, 49, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_without_frames(path: Path) -> None:
    """A container with a video stream that holds nothing."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        container.start_encoding()


def write_keyframes(path: Path, num_frames: int = 48) -> None:
    """An mp4 with a key frame in sixteen, its index at the beginning."""
    options = {"g": "16", "keyint_min": "16", "sc_threshold": "0", "bf": "2"}
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=8, options=options)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        base = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
        for number in range(num_frames):
            image = np.roll(base, number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def cut_without_encoding(source: Path, target: Path, start: float) -> None:
    """What `ffmpeg -ss START -i SOURCE -c copy TARGET` does: all from a key frame on, hidden up to START."""
    with av.open(source) as whole, av.open(target, "w", options={"movflags": "+faststart"}) as container:
        stream = whole.streams.video[0]
        copy = container.add_stream_from_template(stream)
        shift = round(start / stream.time_base)
        whole.seek(shift, stream=stream)
        for packet in whole.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                container.mux(packet)


def test_a_cut_without_encoding_shows_fewer_frames_than_it_holds(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    write_keyframes(whole)
    cut_without_encoding(whole, cut, 3.0)
    with av.open(cut) as container:
        assert container.streams.video[0].frames == 32, "the header does not count hidden frames"
    video, notes = decode_clip(cut)
    assert (len(video.frames), notes) == (24, ())
    every, _ = decode_clip(whole)
    np.testing.assert_allclose(video.frames.astype(int), every.frames[24:].astype(int), atol=3)


def test_an_edit_list_does_not_hide_that_a_file_is_truncated(tmp_path: Path) -> None:
    whole, cut, part = (tmp_path / f"{name}.mp4" for name in ("whole", "cut", "part"))
    write_keyframes(whole)
    cut_without_encoding(whole, cut, 3.0)
    data = cut.read_bytes()
    with av.open(cut) as container:
        places = sorted(entry.pos for entry in container.streams.video[0].index_entries)
    for end, reason in (
        (places[20], "is truncated: 12 of its 32 frames can be read"),
        (places[31], "is truncated: 23 of its 32 frames can be read"),
        (places[20] + 3, "is truncated or not a video file"),
        (len(data) - 3, "is truncated or not a video file"),
    ):
        part.write_bytes(data[:end])
        with pytest.raises(CorruptFileError, match=reason):
            decode_clip(part)


def test_a_frame_that_is_there_and_gives_no_picture_is_missed(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(6):
            image = np.full((32, 48, 3), 30 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    # The ninth bit after a picture's start code says that it is coded.
    data[data.index(b"\0\0\1\xb6") + 5] &= 0x7F
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(CorruptFileError, match="is damaged: 5 of its 6 frames can be read"):
        decode_clip(tmp_path / "a.mp4")


def test_every_bad_file_is_named_with_its_reason_and_the_rest_is_measured(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    make_clip(folder / "good.mp4")
    make_clip(folder / "one.mp4", num_frames=1)
    make_clip(folder / "large.mp4", size=(320, 480))
    make_clip(folder / "cut.mp4", num_frames=40, size=(64, 64))
    whole = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("not a video")
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    write_without_frames(folder / "none.mkv")
    write_variable_rate(folder / "uneven.mp4", [0, 40, 80, 400, 440, 900])
    write_odd_size(folder / "odd.mkv")
    records = measure_clips(
        find_clips(folder),
        MetricSet((Brightness(),)),
        ClipResults(tmp_path),
        EngineSettings(workers=0, max_bytes=500_000),
    )
    reasons = {record["clip"]: record["reason"] for record in records}
    fine = {name for name, reason in reasons.items() if reason is None}
    assert fine == {"good.mp4", "uneven.mp4", "odd.mkv"}
    assert reasons["one.mp4"] == "has one frame; a video needs at least two"
    assert "need more than 0.0005 GB; raise --max-clip-gigabytes" in reasons["large.mp4"]
    assert "truncated" in reasons["cut.mp4"]
    assert reasons["text.mp4"].startswith("is truncated or not a video file")
    assert reasons["empty.mp4"].startswith("is truncated or not a video file")
    assert reasons["folder.mp4"] == "cannot be read (Is a directory)"
    assert reasons["none.mkv"] == "contains no frames"
    failed = next(record for record in records if record["clip"] == "one.mp4")
    assert failed["metrics"] == {"brightness": None}
    by_name = {record["clip"]: record for record in records}
    assert by_name["odd.mkv"]["width"] == 49
    assert by_name["odd.mkv"]["metrics"]["brightness"] == pytest.approx(60, abs=1)
    assert "variable frame rate: frames are 40 to 460 ms apart" in by_name["uneven.mp4"]["notes"][0]


def test_a_file_that_a_manifest_names_and_that_is_not_there_fails(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4")
    (tmp_path / "m.csv").write_text("path\na.mp4\ngone.mp4\n")
    clips = find_clips(tmp_path / "m.csv")
    good, gone = measure_clips(clips, MetricSet((Brightness(),)), ClipResults(tmp_path), HERE)
    assert good["status"] == "ok"
    assert (gone["status"], gone["sha256"]) == ("failed", None)
    assert gone["reason"] == "cannot be read (No such file or directory)"


def test_workers_give_the_same_results_and_outlive_a_clip_that_kills_one(tmp_path: Path) -> None:
    clips = find_clips(make_folder(tmp_path / "videos", prompts=3, seeds=1))
    metrics = MetricSet((DynamicsMetric(), Crash("p1_seed0.mp4")))
    found = measure_clips(clips, metrics, ClipResults(tmp_path), EngineSettings(workers=2))
    assert [record["status"] for record in found] == ["ok", "failed", "ok"]
    assert "the process that measured it died" in found[1]["reason"]
    (tmp_path / "here").mkdir()
    here = measure_clips(clips, MetricSet((DynamicsMetric(),)), ClipResults(tmp_path / "here"), HERE)
    for one, other in zip(here, found, strict=True):
        if other["status"] == "ok":
            assert one["metrics"].items() <= other["metrics"].items()


@dataclass(frozen=True)
class CrashWithMark(FrameMetric):
    """Leaves a file behind and ends the process."""

    mark: Path

    name: ClassVar[str] = "crash"
    metrics: ClassVar[tuple[str, ...]] = ("contrast",)

    def settings(self) -> Mapping[str, Any]:
        return {}

    def compute(self, video: Video, clip: Clip) -> Measured:
        if clip.name == "p0_seed0.mp4":
            self.mark.touch()
            os._exit(3)
        return Measured({"contrast": 1.0})


def test_a_worker_may_die_before_all_have_work(tmp_path: Path) -> None:
    clips = find_clips(make_folder(tmp_path / "videos", prompts=3, seeds=1))
    mark = tmp_path / "mark"

    def tasks() -> Iterator[Task]:
        yield Task(clips[0])
        end = time.monotonic() + 60
        while not mark.exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)  # until the pool has noticed
        yield from map(Task, clips[1:])

    outcomes = list(run_tasks(tasks(), Workload((CrashWithMark(mark),), {}, {"crash": "x"}), workers=2))
    reasons = {outcome.clip.name: outcome.reason for outcome in outcomes}
    assert "the process that measured it died" in reasons.pop("p0_seed0.mp4")
    assert list(reasons.values()) == [None, None]


def test_a_name_that_is_not_utf8_fails_alone(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "videos", prompts=1, seeds=1)
    make_clip(tmp_path / "x.mp4")
    os.rename(tmp_path / "x.mp4", os.fsencode(folder) + b"/b\xff_seed1.mp4")
    results = ClipResults(tmp_path)
    bad, good = measure_clips(find_clips(folder), MetricSet((Brightness(),)), results, HERE)
    assert (good["clip"], good["status"]) == ("p0_seed0.mp4", "ok")
    assert (bad["clip"], bad["prompt_id"], bad["seed"]) == ("b\\udcff_seed1.mp4", "b\\udcff", 1)
    assert bad["reason"] == "its path is not UTF-8, which results are written in; rename it"
    assert results.load() == {record["clip"]: record for record in (bad, good)}


def test_a_value_belongs_to_one_metric() -> None:
    with pytest.raises(ValueError, match="two metrics give the same value brightness"):
        MetricSet((Brightness(), Brightness(2.0)))


def evaluate(tmp_path: Path, **settings: Any) -> dict[str, Any]:
    wanted = {
        "folder": tmp_path / "videos",
        "output": tmp_path / "out",
        "workers": 0,
        "metrics": ("dynamics",),
    }
    chosen = EvaluateSettings(**(wanted | settings))
    found = evaluate_folder(chosen, torch.device("cpu"), "vggrpo evaluate ...")
    assert json.loads((found.output / "summary.json").read_text()) == found.summary
    return found.summary


def test_the_summary_is_the_bootstrap_of_the_records_by_kind_and_paired(tmp_path: Path) -> None:
    make_folder(tmp_path / "videos")
    make_folder(tmp_path / "base", prompts=2, seeds=2, shift=60)
    make_clip(tmp_path / "base" / "more_seed0.mp4")
    summary = evaluate(tmp_path, reference=tmp_path / "base", label="ours", seed=3)
    records = list(ClipResults(tmp_path / "out").load().values())
    reference = ClipResults(tmp_path / "out" / "reference").load()
    assert set(reference) == {f"p{prompt}_seed{seed}.mp4" for prompt in range(2) for seed in range(2)}
    row = summary["metrics"]["flow_magnitude"]
    column = [record["metrics"]["flow_magnitude"] for record in records]
    expected = bootstrap_mean(column, [record["prompt_id"] for record in records], seed=3)
    assert row["all"] == {"mean": expected.mean, "low": expected.low, "high": expected.high, "n": 6}
    assert row["dynamic"]["mean"] == pytest.approx(np.mean(column[:2]))
    assert row["dynamic"]["low"] is None  # one prompt has no interval
    assert row["static"]["n"] == 4
    pairs = [record for record in records if record["clip"] in reference]
    difference = paired_difference(
        [reference[record["clip"]]["metrics"]["flow_magnitude"] for record in pairs],
        [record["metrics"]["flow_magnitude"] for record in pairs],
        [record["prompt_id"] for record in pairs],
        seed=3,
    )
    assert summary["reference"]["flow_magnitude"]["all"]["mean"] == difference.mean
    assert summary["reference"]["flow_magnitude"]["all"]["low"] == difference.low
    assert (summary["label"], summary["reference_label"], summary["reference_pairs"]) == ("ours", "base", 4)
    assert "has no counterpart in the reference" in records[4]["notes"]
    assert summary["not_run"]["mvcs"] == "no --geometry-model was given"
    assert summary["not_run"]["epipolar_error"] == "left out: --metrics has no epipolar"
    table = summary_table(summary)
    assert [column.header for column in table.columns] == [
        *("metric", "all", "static", "dynamic", "n", "minus base"),
    ]


def test_sizes_that_differ_are_said(tmp_path: Path) -> None:
    for number, size in enumerate([(32, 48), (32, 48), (64, 48)]):
        make_clip(tmp_path / "videos" / f"{number}.mp4", size=size)
    summary = evaluate(tmp_path)
    assert summary["notes"] == [
        "clips have several sizes: 48x32 (2), 48x64 (1); errors in pixels do not compare between them"
    ]
    last = ClipResults(tmp_path / "out").load()["2.mp4"]
    assert "48x64 pixels, where most clips have 48x32" in last["notes"][-1]
    assert all(row["static"] is row["dynamic"] is None for row in summary["metrics"].values())


def test_an_output_is_continued_only_when_asked(tmp_path: Path) -> None:
    make_folder(tmp_path / "videos", prompts=1)
    evaluate(tmp_path)
    with pytest.raises(RunError, match="already holds a run; add --resume"):
        evaluate(tmp_path)
    before = (tmp_path / "out" / "clips.jsonl").read_text()
    evaluate(tmp_path, resume=True)
    assert (tmp_path / "out" / "clips.jsonl").read_text() == before
    make_folder(tmp_path / "others", prompts=1)
    with pytest.raises(RunError, match="made with other settings"):
        evaluate(tmp_path, resume=True, folder=tmp_path / "others")


def test_an_interrupted_continuation_is_not_finished(tmp_path: Path) -> None:
    folder, output = make_folder(tmp_path / "videos", prompts=2, seeds=1), tmp_path / "out"
    settings = {"reference": tmp_path / "base", "resume": True}
    make_folder(tmp_path / "base", prompts=2, seeds=1)
    evaluate(tmp_path, reference=tmp_path / "base")
    page = write_folder_report(output)
    make_clip(folder / "p0_seed0.mp4", 200)
    kept = (output / "reference" / "clips.jsonl").rename(tmp_path / "kept")
    (output / "reference" / "clips.jsonl").mkdir()
    with pytest.raises(IsADirectoryError):
        evaluate(tmp_path, **settings)
    assert not page.exists()
    with pytest.raises(ConfigError, match=r"not finished .* continue it with --resume"):
        read_evaluation(output)
    (output / "reference" / "clips.jsonl").rmdir()
    kept.rename(output / "reference" / "clips.jsonl")
    with pytest.raises(ConfigError, match="not finished"):
        read_evaluation(output / "reference")
    evaluate(tmp_path, **settings)
    assert len(read_evaluation(output).clips) == len(read_evaluation(output / "reference").clips) == 2


def test_the_recorded_settings_are_those_of_the_last_call(tmp_path: Path) -> None:
    make_folder(tmp_path / "videos", prompts=1)
    evaluate(tmp_path)
    evaluate(tmp_path, resume=True, metrics=("dynamics", "features"), label="again", seed=4)
    recorded = EvaluateSettings(**yaml.safe_load((tmp_path / "out" / "config.yaml").read_text("utf-8")))
    assert (recorded.metrics, recorded.label, recorded.seed) == (("dynamics", "features"), "again", 4)
    assert not recorded.resume


def test_what_cannot_work_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    make_folder(tmp_path / "videos", prompts=1)
    with pytest.raises(ConfigError, match="there is nothing to measure"):
        evaluate(tmp_path, metrics=())
    with pytest.raises(ConfigError, match="neither a folder of videos nor a manifest"):
        evaluate(tmp_path, reference=tmp_path / "absent")
    with pytest.raises(ValueError, match="give each only once"):
        evaluate(tmp_path, metrics=("dynamics", "dynamics"))
    assert not (tmp_path / "out").exists()


def test_not_run_metrics_have_a_reason_and_no_number() -> None:
    metrics = MetricSet((), (NotRun(("mvcs", "camera_path"), "why"),))
    assert metrics.value_names == ()
    summary = {"metrics": {}, "reference": None, "not_run": {"mvcs": "why"}}
    assert summary_table(summary).row_count == 1


def test_foreign_words_in_the_table_are_no_markup() -> None:
    summary = {
        "metrics": {},
        "reference": {},
        "reference_label": "base [red]v1[/red]",
        "not_run": {"mvcs": "cannot read [/weights] of it"},
    }
    console = Console(width=160)
    with console.capture() as capture:
        console.print(summary_table(summary))
    printed = capture.get()
    assert "minus base [red]v1[/red]" in printed
    assert "not run: cannot read [/weights] of it" in printed
