"""Trackers that are missing, down or broken: the training is the same without them."""

import logging
from importlib.util import find_spec

import pytest
import torch

from vggrpo.io import read_records
from vggrpo.io.trackers import Tracked, Trackers


def test_a_broken_tracker_changes_nothing(make_trainer, caplog):
    alone, watched = make_trainer(name="alone"), make_trainer(name="watched")
    folder = watched.run.path
    (folder / "tensorboard").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        watched.run.trackers = Trackers.open(["tensorboard"], Tracked(folder))
        for trainer in (alone, watched):
            trainer.train(until=2)
        watched.run.trackers.close()
    assert watched.run.trackers.missed == {"tensorboard": 4}, "two metrics, two histograms"
    assert sum("tracker tensorboard fails" in record.getMessage() for record in caplog.records) == 1
    for first, second in zip(alone.parameters, watched.parameters, strict=True):
        assert torch.equal(first, second)
    kept = [
        [
            {name: value for name, value in record.items() if not name.startswith("time/")}
            for record in read_records(trainer.run.path / "metrics.jsonl")
        ]
        for trainer in (alone, watched)
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


@pytest.mark.skipif(find_spec("trackio") is not None, reason="trackio is installed")
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_made(vggrpo, train, tmp_path):
    vggrpo(*train, "--trackers", "trackio").is_a_sentence(
        2, "trackio, which is not installed", "vggrpo[trackio]"
    )
    assert not (tmp_path / "run").exists()
