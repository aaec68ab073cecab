"""What the doctor says about VBench's environment."""

import json
from pathlib import Path

import pytest

from vggrpo.evaluation.vbench.environment import requirements_sha256
from vggrpo.training.doctor.vbench import vbench


def test_the_environment_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGGRPO_CACHE", str(tmp_path))
    absent = vbench()
    assert (absent.status, absent.found) == ("note", "VBench has no environment")
    assert "vggrpo evaluate --setup vbench" in absent.remedy

    folder = tmp_path / "vbench"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    state = {"created": "2026-01-01", "requirements": requirements_sha256(), "unavailable": {}}
    (folder / "environment.json").write_text(json.dumps(state))
    assert vbench().status == "ok"
    assert "7 of 7 dimensions" in vbench().found

    partly = state | {"unavailable": {"dynamic_degree": "no weights"}}
    (folder / "environment.json").write_text(json.dumps(partly))
    finding = vbench()
    assert finding.status == "note"
    assert "6 of 7 dimensions" in finding.found
    assert "dynamic_degree: no weights" in finding.found
