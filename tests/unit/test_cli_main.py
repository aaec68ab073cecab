"""The command line's frame: finding commands, help, errors as sentences, exit codes."""

import errno
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

import vggrpo
from vggrpo.cli import main as cli
from vggrpo.config import ConfigError, CorruptFileError, VggrpoError

Body = Callable[[list[str]], int]


def all_commands() -> list[tuple[str, cli.Command]]:
    found = []
    for name, entry in cli.COMMANDS.items():
        if isinstance(entry, cli.Group):
            found += [(f"{name} {inner}", command) for inner, command in entry.commands.items()]
        else:
            found.append((name, entry))
    return found


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], None]:
    """Adds a command `planted` that runs the given function."""

    def add(body: Body) -> None:
        module = ModuleType("planted_command")
        module.main = body  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "planted_command", module)
        monkeypatch.setitem(cli.COMMANDS, "planted", cli.Command("planted_command", "a test"))

    return add


def raising(error: BaseException) -> Body:
    def body(argv: list[str]) -> int:
        raise error

    return body


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_every_listed_command_has_its_module(name: str, command: cli.Command) -> None:
    relative = command.module.removeprefix("vggrpo.").replace(".", "/") + ".py"
    assert (Path(vggrpo.__file__).parent / relative).is_file(), name


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, entry in cli.COMMANDS.items():
        assert name in shown
        assert entry.help in shown
    assert cli.main(["world", "-h"]) == 0
    assert "train-vae" in capsys.readouterr().out


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: vggrpo COMMAND" in capsys.readouterr().out
    assert cli.main(["world"]) == 2
    assert "usage: vggrpo world COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "vggrpo has no command trian; did you mean train?"),
        (["find_layer"], "vggrpo has no command find_layer; did you mean find-layer?"),
        (["world", "rendr"], "vggrpo world has no command rendr; did you mean render?"),
        (["xyzzy"], "vggrpo has no command xyzzy; commands are demo, find-layer"),
    ],
)
def test_unknown_commands(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    assert message in capsys.readouterr().err


def test_arguments_and_exit_code_pass_through(plant: Callable[[Body], None]) -> None:
    seen = []
    plant(lambda argv: seen.append(argv) or 7)
    assert cli.main(["planted", "--lr", "1", "--help"]) == 7
    assert seen == [["--lr", "1", "--help"]]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("2 problems in a.yaml:\n  lr: is -1"), 2, "error: 2 problems in a.yaml:\n  lr: is -1\n"),
        (VggrpoError("The run is gone."), 1, "error: The run is gone.\n"),
        (CorruptFileError("a.mp4 is truncated"), 1, "error: a.mp4 is truncated\n"),
        (ValueError("height is 7"), 1, "error: height is 7 (VGGRPO_DEBUG=1 shows where)\n"),
        (
            FloatingPointError("loss is not finite"),
            1,
            "error: loss is not finite (VGGRPO_DEBUG=1 shows where)\n",
        ),
        (FileNotFoundError("there is no video file a"), 1, "error: there is no video file a\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), 1, "error: Permission denied: /a/b\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/a/b"),
            1,
            "error: no space is left on the disk: /a/b; free some and run the command again\n",
        ),
        (KeyboardInterrupt("Stopped; step 40 is saved."), 130, "\nStopped; step 40 is saved.\n"),
        (KeyboardInterrupt(), 130, f"\n{cli.INTERRUPTED}\n"),
    ],
)
def test_errors_are_sentences_without_a_trace(
    error: BaseException,
    code: int,
    message: str,
    plant: Callable[[Body], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VGGRPO_DEBUG", raising=False)
    plant(raising(error))
    assert cli.main(["planted"]) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_a_full_gpu_names_flags_that_the_command_has(
    name: str, command: cli.Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(command.module)
    monkeypatch.setattr(module, "main", raising(torch.OutOfMemoryError("CUDA out of memory")))
    assert cli.main(name.split()) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: the GPU's memory is full; ")
    monkeypatch.undo()
    flags = re.findall(r"--[a-z][a-z.-]*", message)
    if flags:
        with pytest.raises(SystemExit):
            cli.main([*name.split(), "--help"])
        shown = re.findall(r"--[a-z][a-z.-]*", capsys.readouterr().out)
        assert set(flags) <= set(shown)


def test_flags_for_less_memory_are_of_commands() -> None:
    assert cli.LESS_MEMORY.keys() <= dict(all_commands()).keys()


def test_debug_shows_the_trace(
    plant: Callable[[Body], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VGGRPO_DEBUG", "1")
    plant(raising(VggrpoError("The run is gone.")))
    assert cli.main(["planted"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: The run is gone.\n")


def test_mistakes_of_the_program_are_not_hidden(plant: Callable[[Body], None]) -> None:
    plant(raising(TypeError("unexpected")))
    with pytest.raises(TypeError, match="unexpected"):
        cli.main(["planted"])


def test_module_is_runnable_and_tells_its_version() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "vggrpo", "--version"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, f"vggrpo {vggrpo.__version__}\n")


def test_reader_that_leaves_is_no_trace() -> None:
    code = (
        "import sys, types\n"
        "from vggrpo.cli import main as cli\n"
        "module = types.ModuleType('m')\n"
        "module.main = lambda argv: [print('x' * 100, flush=True) for _ in range(10000)] and 0\n"
        "sys.modules['m'] = module\n"
        "cli.COMMANDS['m'] = cli.Command('m', '')\n"
        "sys.exit(cli.main(['m']))"
    )
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (run.returncode, run.stderr) == (1, "")
