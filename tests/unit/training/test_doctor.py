"""The doctor's findings, on machines that lack something."""

import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from rich.console import Console
from safetensors.torch import load_file, save_file

from tiny_models import tiny_vggt, tiny_wan
from vggrpo.backbones.pipelines.report import pipeline_report
from vggrpo.cli.main import main
from vggrpo.config import ConfigError, resolve_model
from vggrpo.training.doctor import machine, report_weights, software, weights
from vggrpo.training.doctor.findings import Finding, findings_table

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of one module with the given content and requirements."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(name: str, version: str, requires=(), body: str = "") -> None:
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        (tmp_path / f"{name}.py").write_text(body)

    return add


def test_packages_that_are_missing_or_old_are_named(install):
    install("planted", "1.0", ["torch>=99", "no-such-package>=1", "numpy>=1", 'also-none; extra == "more"'])
    finding = software.packages("planted")
    assert finding.status == "error"
    assert "no-such-package>=1 is missing" in finding.found
    assert "torch is 2." in finding.found
    assert "needed is >=99" in finding.found
    assert "numpy" not in finding.found
    assert "also-none" not in finding.found
    assert software.packages().status == "ok"
    assert software.python().status == "ok"


def test_a_torchvision_of_another_build_is_the_error(install, monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "torchvision", raising=False)
    assert software.torchvision() == Finding("torchvision", "ok", "not installed, and not needed")
    install("torchvision", "0.99", body="raise RuntimeError('operator torchvision::nms does not exist')")
    finding = software.torchvision()
    assert (finding.status, finding.remedy) == ("error", "pip uninstall torchvision")
    assert "0.99 cannot be imported beside torch 2." in finding.found
    assert "operator torchvision::nms does not exist" in finding.found


def test_a_container_has_the_memory_that_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert "of" in machine.memory().found
    (tmp_path / "memory.max").write_text(f"{2 * machine.GIB}\n")
    (tmp_path / "memory.current").write_text(f"{machine.GIB // 2}\n")
    assert machine.memory() == Finding(
        "memory", "note", "1.5 of 2.0 GiB free", "end other programs, or lower batch sizes"
    )
    (tmp_path / "memory.max").write_text("max\n")
    assert "2.0 GiB" not in machine.memory().found


def test_disks_are_those_of_the_nearest_folder_that_exists(tmp_path, monkeypatch):
    runs, _ = machine.disk(tmp_path / "not" / "yet")
    assert str(tmp_path / "not" / "yet") in runs.found
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=machine.GIB))
    runs, cache = machine.disk(tmp_path)
    assert (runs.status, runs.remedy) == ("error", "free some, or name another disk with --output")
    assert (cache.status, cache.remedy) == ("error", "free some, or name another disk with HF_HOME")


def test_a_gpu_that_torch_cannot_use_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    (none,) = machine.devices()
    assert none.status == "note"
    (tmp_path / "version").write_text("NVRM version")
    monkeypatch.setattr(machine.torch.version, "cuda", None)
    (finding,) = machine.devices()
    assert finding.status == "error"
    assert "built for the CPU" in finding.found
    monkeypatch.setattr(machine.torch.version, "cuda", "12.9")
    (finding,) = machine.devices()
    assert "CUDA_VISIBLE_DEVICES" in finding.remedy


def test_hugging_face_is_asked(monkeypatch):
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403 if self.path == "/closed" else 200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    assert "HF_HUB_OFFLINE" in machine.hub().found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = HTTPServer(("127.0.0.1", 0), Answer)
    place = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setattr(constants, "ENDPOINT", place)
        assert machine.hub().status == "ok"
        monkeypatch.setattr(constants, "ENDPOINT", f"{place}/closed")
        assert machine.hub().found == f"{place}/closed answers 403"
    finally:
        server.shutdown()
        server.server_close()
    monkeypatch.setattr(constants, "ENDPOINT", place)
    finding = machine.hub()
    assert finding.status == "note"
    assert "cannot be reached" in finding.found


def test_models_that_ship_are_complete_and_others_say_how_to_get_them():
    found = {finding.subject: finding for finding in weights.models("video", "geometry")}
    assert found["video model micro"].status == found["geometry model micro"].status == "ok"
    assert "hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers" in found["video model wan2.2-5b"].remedy
    assert found["geometry model any4d"].remedy.endswith("airlabshare/any4d-checkpoint any4d_4v_combined.pth")


@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
def test_a_pipelines_report_names_every_tensor_that_does_not_fit(tmp_path, kind):
    folder = tiny_wan(tmp_path / "pipeline", kind)
    whole = pipeline_report(folder)
    assert whole.fits
    assert whole.num_elements > 10_000
    assert sum("everything fits" in line for line in whole.lines()) == 3

    tensors = load_file(folder / TRANSFORMER)
    missing = tensors.pop("blocks.1.attn1.to_q.weight")
    tensors["blocks.7.extra"] = missing
    tensors["proj_out.weight"] = tensors["proj_out.weight"][:-1].contiguous()
    save_file(tensors, folder / TRANSFORMER)
    (report,) = report_weights(folder)
    assert not report.fits
    text = "\n".join(report.lines())
    assert "blocks.1.attn1.to_q.weight is missing" in text
    assert "blocks.7.extra is unknown" in text
    assert "proj_out.weight is [" in text

    source = resolve_model(folder, "video")
    finding = weights._model("video model tiny", source)
    assert finding.status == "error"
    assert finding.found.startswith("transformer: ")
    (folder / TRANSFORMER).write_bytes((folder / TRANSFORMER).read_bytes()[:-50])
    assert "truncated or damaged" in weights._model("video model tiny", source).found


def test_the_text_encoders_two_names_of_one_embedding_are_one(tiny_pipeline, tmp_path):
    shutil.copytree(tiny_pipeline, tmp_path / "copy")
    file = tmp_path / "copy" / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    embedding = tensors.pop("shared.weight")
    for names in (["encoder.embed_tokens.weight"], ["encoder.embed_tokens.weight", "shared.weight"]):
        both = tensors | {name: embedding.clone() for name in names}
        save_file(both, file, metadata={"format": "pt"})
        assert pipeline_report(tmp_path / "copy").fits
    save_file(tensors, file, metadata={"format": "pt"})
    assert not pipeline_report(tmp_path / "copy").fits


def test_the_command_reports_on_weights(tiny_pipeline, tmp_path, capsys):
    assert main(["doctor", "--weights", str(tiny_pipeline)]) == 0
    assert "everything fits" in capsys.readouterr().out
    assert main(["doctor", "--weights", str(tmp_path / "nowhere.pth")]) == 2
    assert "nowhere.pth is neither a model, nor a file or folder" in capsys.readouterr().err
    (tmp_path / "empty.safetensors").write_bytes(b"")
    assert main(["doctor", "--weights", str(tmp_path / "empty.safetensors")]) == 1
    assert "error: " in capsys.readouterr().err
    save_file(tiny_vggt().network.state_dict(), tmp_path / "small.safetensors")
    assert main(["doctor", "--weights", str(tmp_path / "small.safetensors")]) == 1
    assert "does not fit: " in capsys.readouterr().out
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"no network that is known here"):
        list(report_weights(tmp_path / "other.safetensors"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Hugging Face's cache: a function that puts parts of a folder there as a repository's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def add(repository: str, folder: Path, *patterns: str) -> None:
        place = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / "main").write_text("0123abc")
        for file in (file for pattern in patterns for file in folder.glob(pattern)):
            copy = place / "snapshots" / "0123abc" / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)

    return add


def test_weights_that_are_not_here_are_no_fault(cache, capsys):
    assert main(["doctor", "--weights", "wan2.2-5b", "any4d", "someone/wan@v2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("beforehand: hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    assert lines[1].endswith("beforehand: hf download airlabshare/any4d-checkpoint any4d_4v_combined.pth")
    assert lines[2].endswith("beforehand: hf download someone/wan --revision v2")
    assert all("not here; downloaded when first used" in line for line in lines)
    assert main(["doctor", "--weights", "wan2.2-5"]) == 2
    assert "did you mean wan2.2-5b?" in capsys.readouterr().err


def test_names_of_two_models_and_folders_of_ours_are_reported(tmp_path, capsys):
    assert main(["doctor", "--weights", "micro"]) == 0
    shown = capsys.readouterr().out
    assert ": WanPipeline" in shown
    assert ": any4d" in shown
    tiny_vggt().save_pretrained(tmp_path / "ours")
    assert main(["doctor", "--weights", str(tmp_path / "ours")]) == 0
    assert "model.safetensors: vggt" in capsys.readouterr().out
    tensors = load_file(tmp_path / "ours" / "model.safetensors")
    del tensors["aggregator.camera_token"]
    save_file(tensors, tmp_path / "ours" / "model.safetensors")
    assert main(["doctor", "--weights", str(tmp_path / "ours")]) == 1
    assert "aggregator.camera_token is missing" in capsys.readouterr().out


def test_a_repository_of_which_some_parts_are_here_is_no_fault(tiny_pipeline, cache, capsys):
    """As training leaves it: of what it does not use nothing has been downloaded."""
    known = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
    for name, repository in (("wan2.2-5b", known), (known, known), ("someone/wan", "someone/wan")):
        cache(repository, tiny_pipeline, "*.json", "transformer/*", "vae/config.json")
        assert main(["doctor", "--weights", name]) == 0
        lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
        assert "transformer" in lines
        assert "everything fits" in lines
        for part in ("tokenizer", "vae", "text_encoder"):
            assert f"{part} is not here yet; it is downloaded when first used" in lines
    (finding,) = [f for f in weights.models("video") if f.subject.endswith("wan2.2-5b")]
    assert (finding.status, finding.found) == (
        "note",
        "transformer here, tokenizer, vae, text_encoder not yet",
    )
    assert finding.remedy.endswith(f"hf download {known}")

    cache(known, tiny_pipeline, "*/*")
    assert main(["doctor", "--weights", known]) == 0
    assert "not here yet" not in capsys.readouterr().out
    (finding,) = [f for f in weights.models("video") if f.subject.endswith("wan2.2-5b")]
    assert finding.status == "ok"


def test_cached_geometry_models_are_reported(tmp_path, cache, capsys):
    tiny_vggt().save_pretrained(tmp_path / "ours")
    cache("someone/vggt", tmp_path / "ours", "config.json")
    assert main(["doctor", "--weights", "someone/vggt"]) == 0
    assert "not here; downloaded" in capsys.readouterr().out
    cache("someone/vggt", tmp_path / "ours", "*")
    assert main(["doctor", "--weights", "someone/vggt"]) == 0
    assert "everything fits" in capsys.readouterr().out
    save_file({"aggregator.camera_token": torch.zeros(1)}, tmp_path / "model.safetensors")
    cache("facebook/VGGT-1B", tmp_path, "model.safetensors")
    for name in ("vggt", "facebook/VGGT-1B"):
        assert main(["doctor", "--weights", name]) == 1
        assert "does not fit: " in capsys.readouterr().out


def test_the_command_prints_a_line_for_everything(capsys):
    assert main(["doctor", "--no-hub"]) == 0
    shown = capsys.readouterr().out
    for subject in (
        "Python",
        "packages",
        "torchvision",
        "Wan classes",
        "memory",
        "disk of runs",
        "geometry model",
    ):
        assert subject in shown
    assert "Hugging Face" not in shown
    assert "nothing is wrong" in shown


def test_text_in_brackets_is_shown_as_it_is():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(findings_table([Finding("a", "error", "[/etc/x] [bold]", "[red]")]))
    assert "[/etc/x] [bold]" in console.export_text()
