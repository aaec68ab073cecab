"""`train` refuses a latent geometry model that its gate does not vouch for, before any work."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.config import ConfigError, CorruptFileError, RewardSettings, TrainSettings
from vggrpo.evaluation import ClipQuality, LGMGate, RankAgreement, rank_agreement
from vggrpo.lgm import Connector, LatentGeometryModel
from vggrpo.training.align import align
from vggrpo.training.lgm_admission import admit
from vggrpo.training.lgm_data import weights_fingerprint


def agreement(noise: float) -> RankAgreement:
    """Of an LGM that is the teacher plus noise, in standard deviations: share .94 at .3, .28 at 3."""
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=200)
    return rank_agreement(
        teacher + noise * rng.normal(size=200), teacher, teacher + 0.1 * rng.normal(size=200)
    )


@dataclass(frozen=True)
class Judged:
    """A latent geometry model with a gate, and the settings of a training with it."""

    folder: Path
    lgm: LatentGeometryModel
    settings: TrainSettings

    def write(self, camera_motion: float = 0.3, reprojection: float = 0.3, **changes: object) -> LGMGate:
        """Gives the model a gate with so much noise on each reward."""
        quality = ClipQuality(
            {"camera_motion": agreement(camera_motion), "reprojection": agreement(reprojection)}, {}
        )
        gate = LGMGate(
            weights=weights_fingerprint(self.lgm),
            base_model="tiny",
            geometry_model="tiny",
            clip=(9, 16, 16),
            options=RewardSettings().model_dump(mode="json"),
            generated=quality,
            real=quality,
            robustness={},
            steady_shaky_auc={},
        )
        gate = replace(gate, **changes)
        gate.save(self.folder)
        return gate

    def admit(self, **changes: object) -> None:
        values = self.settings.model_dump() | changes
        admit(TrainSettings.model_validate(values), self.lgm)


@pytest.fixture
def judged(lgm_models: Path, tmp_path: Path) -> Judged:
    geometry = load_geometry_backbone(lgm_models / "geometry")
    spec = load_video_backbone(lgm_models / "pipeline").latent_spec
    point = geometry.stitch_point("E1")
    torch.manual_seed(0)
    connector = Connector(spec.channels, point.width, (2, 2), point.num_special_tokens)
    folder = tmp_path / "model"
    LatentGeometryModel(geometry, connector, "E1", spec, "tiny", "tiny").save_pretrained(folder)
    settings = TrainSettings.model_validate(
        {
            "base_model": str(lgm_models / "pipeline"),
            "geometry_model": str(lgm_models / "geometry"),
            "lgm_path": folder,
            "lgm_floor": 0.5,
            "output": tmp_path / "run",
            "prompts": "world",
            "evaluation_prompts": "world",
            "num_prompts": 1,
            "num_evaluation_prompts": 1,
            "num_frames": 9,
            "height": 16,
            "width": 16,
            "cfg_scale": 1.0,
        }
    )
    return Judged(folder, LatentGeometryModel.from_pretrained(folder), settings)


def test_a_good_gate_is_printed_and_passes(judged: Judged, capsys: pytest.CaptureFixture[str]) -> None:
    gate = judged.write()
    judged.admit()
    lines = capsys.readouterr().out.splitlines()
    assert str(judged.folder) in lines[0]
    assert "floor 0.5" in lines[0]
    (line,) = (line for line in lines if line.startswith("generated") and "camera_motion" in line)
    assert line.endswith("passed")
    assert f"{gate.generated.rewards['camera_motion'].share.mean:.2f} (" in line


def test_a_reward_below_the_floor_is_named_with_its_figures_and_the_remedies(
    judged: Judged, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = judged.write(reprojection=3.0)
    share = gate.generated.rewards["reprojection"].share.mean
    assert 0.2 < share < 0.5
    with pytest.raises(ConfigError) as refused:
        judged.admit()
    text = str(refused.value)
    assert f"its reprojection reward reaches {share:.2f} of the ceiling on generated clips" in text
    assert "below lgm_floor 0.5" in text
    assert "camera_motion" not in text
    for part in ("learns to exploit", "more generated_clips, more epochs", "lower --lgm-floor"):
        assert part in text
    assert "too low" in capsys.readouterr().out  # the table comes first


def test_the_floor_decides(judged: Judged) -> None:
    share = judged.write(reprojection=3.0).generated.rewards["reprojection"].share.mean
    judged.admit(lgm_floor=share)
    with pytest.raises(ConfigError, match="reprojection reward reaches"):
        judged.admit(lgm_floor=share + 1e-6)


def test_a_reward_that_is_not_used_is_not_gated(judged: Judged, capsys: pytest.CaptureFixture[str]) -> None:
    judged.write(reprojection=3.0)
    judged.admit(reward_weights={"camera_motion": 1.0, "reprojection": 0.0})
    assert "not used" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="its reprojection reward"):
        judged.admit(reward_weights={"camera_motion": 0.0, "reprojection": 1.0})


def test_an_unknown_share_does_not_pass(judged: Judged) -> None:
    blind = rank_agreement([math.nan] * 3, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    quality = ClipQuality({"camera_motion": agreement(0.3), "reprojection": blind}, {})
    judged.write(generated=quality)
    with pytest.raises(ConfigError, match=r"reprojection .* is unknown \(0 clips measured, 3 failed"):
        judged.admit()


def test_floor_0_admits_everything_and_calls_nothing_passed(
    judged: Judged, capsys: pytest.CaptureFixture[str]
) -> None:
    judged.write(camera_motion=3.0)
    judged.admit(lgm_floor=0.0)
    shown = capsys.readouterr().out
    assert "not gated" in shown
    assert "passed" not in shown


@pytest.mark.parametrize("floor", [0.5, 0.0])
def test_a_model_without_a_gate(judged: Judged, capsys: pytest.CaptureFixture[str], floor: float) -> None:
    if floor:
        with pytest.raises(ConfigError, match=r"has no gate\.json.*\n.*train-lgm.*--lgm-floor 0"):
            judged.admit(lgm_floor=floor)
    else:
        judged.admit(lgm_floor=floor)
        assert "has no gate.json; lgm_floor is 0" in capsys.readouterr().out


def test_the_gate_of_other_weights(judged: Judged, capsys: pytest.CaptureFixture[str]) -> None:
    judged.write()
    with torch.no_grad():
        judged.lgm.connector.conv.bias[0] += 1e-6
    with pytest.raises(ConfigError, match="measured on other weights than those in the folder"):
        judged.admit()
    judged.admit(lgm_floor=0.0)
    assert "passed" not in capsys.readouterr().out


def test_the_gate_of_another_reading_of_a_reward(judged: Judged) -> None:
    judged.write()
    other = {"rewards": {"camera_motion": {"order": "jerk"}}}
    with pytest.raises(ConfigError, match=r"camera_motion reward \(order: acceleration there, jerk now\)"):
        judged.admit(**other)
    judged.admit(**other, reward_weights={"camera_motion": 0.0, "reprojection": 1.0})
    judged.admit(**other, lgm_floor=0.0)


@pytest.mark.parametrize("floor", [0.5, 0.0])
def test_a_damaged_gate(judged: Judged, floor: float) -> None:
    judged.write()
    path = judged.folder / "gate.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CorruptFileError, match=r"gate\.json"):
        judged.admit(lgm_floor=floor)


def test_train_refuses_before_it_makes_anything(judged: Judged) -> None:
    judged.write(camera_motion=3.0)
    with pytest.raises(ConfigError, match="its camera_motion reward reaches"):
        align(judged.settings)
    assert not judged.settings.output.exists()
