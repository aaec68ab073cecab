"""`vggrpo`: finds the command, runs it, and turns errors into sentences and exit codes.

Exit codes: 0 done; 1 an error; 2 wrong settings, flags or command; 3 ended by an alarm; 130 interrupted.
"""

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Command:
    """A command: the module whose `main(argv: list[str]) -> int` runs it, and one line of help."""

    module: str
    help: str


@dataclass(frozen=True)
class Group:
    """Commands under a common first word."""

    help: str
    commands: Mapping[str, Command]


WORLD = Group(
    "the procedural 4D world, and the base models trained on it",
    {
        "render": Command("vggrpo.cli.world_render", "clips with exact geometry and captions"),
        "train-vae": Command("vggrpo.cli.world_train_vae", "the video autoencoder"),
        "train-geometry": Command("vggrpo.cli.world_train_geometry", "the geometry model"),
        "train-video": Command("vggrpo.cli.world_train_video", "the video model"),
        "evaluate": Command("vggrpo.cli.world_evaluate", "the base models against exact geometry"),
    },
)
COMMANDS: dict[str, Command | Group] = {
    "demo": Command("vggrpo.cli.demo", "the whole method on the micro family, ending in a report"),
    "find-layer": Command("vggrpo.cli.find_layer", "where to enter the geometry model from video latents"),
    "train-lgm": Command("vggrpo.cli.train_lgm", "the latent geometry model"),
    "tune-noise": Command("vggrpo.cli.tune_noise", "how much noise the rollouts of `train` can take"),
    "train": Command("vggrpo.cli.train", "post-training of a video model with the geometry rewards"),
    "generate": Command("vggrpo.cli.generate", "videos from prompts"),
    "score": Command("vggrpo.cli.score", "rewards of videos or latents, and what they are made of"),
    "evaluate": Command("vggrpo.cli.evaluate", "metrics over a folder of videos, against a reference folder"),
    "compare": Command("vggrpo.cli.compare", "several evaluations in one table, with what differs"),
    "evaluate-geometry": Command(
        "vggrpo.cli.evaluate_geometry", "geometry models against exact cameras, depth and scene flow"
    ),
    "reconstruct": Command("vggrpo.cli.reconstruct", "the 4D scene of a video or of latents"),
    "fuse": Command("vggrpo.cli.fuse", "a LoRA merged into its base model, or written for ComfyUI"),
    "doctor": Command("vggrpo.cli.doctor", "what this machine has of what the commands need"),
    "view": Command("vggrpo.cli.view", "a 4D scene, or two side by side, in the browser or as one HTML file"),
    "world": WORLD,
}

BFLOAT16 = "use --precision bfloat16 --weights bfloat16"
LESS_MEMORY = {
    "find-layer": "lower --batch-size",
    "train-lgm": f"use --gradient-checkpointing, lower --micro-batch or --batch-size, or {BFLOAT16}",
    "tune-noise": f"lower --rollout-batch, or {BFLOAT16}",
    "train": f"use --gradient-checkpointing, lower --rollout-batch and --update-batch, or {BFLOAT16}",
    "generate": "lower --batch-size, use --precision bfloat16 or --efficiency.offload, or, with reward "
    "guidance, --gradient-checkpointing",
    "score": "with --space rgb lower --max-views or --max-side; else use a larger GPU",
    "evaluate": "lower --batch-size, --geometry-views or --geometry-side",
    "evaluate-geometry": "lower --batch-size",
    "reconstruct": "lower --num-frames, --height and --width, or, with --geometry-model, --max-side",
    "world evaluate": "lower --batch-size, or use --precision bfloat16",
}
"""What to do when the GPU's memory is full, in flags that the command has; of the others nothing helps but
a larger GPU."""
INTERRUPTED = (
    "Interrupted. What was finished is kept and nothing is half-written; "
    "a command that makes a run continues it with --resume --output FOLDER."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `vggrpo ARGV` and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    prefix, commands = "vggrpo", COMMANDS
    while True:
        if not words or words[0] in ("-h", "--help"):
            with _reader_may_leave():
                print(_help(prefix, commands), flush=True)
            return 0 if words else 2
        word = words.pop(0)
        if word == "--version" and prefix == "vggrpo":
            return _print_version()
        if word not in commands:
            print(_unknown(prefix, word, commands), file=sys.stderr)
            return 2
        command = commands[word]
        if isinstance(command, Command):
            return _run(f"{prefix} {word}".removeprefix("vggrpo "), command, words)
        prefix, commands = f"{prefix} {word}", dict(command.commands)


def _run(name: str, command: Command, argv: list[str]) -> int:
    import logging

    from vggrpo.config.errors import AlarmError, ConfigError, VggrpoError

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        return int(importlib.import_module(command.module).main(argv))
    except AlarmError as error:
        print(str(error), file=sys.stderr)
        return 3
    except KeyboardInterrupt as error:
        print(f"\n{str(error) or INTERRUPTED}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()
        return 1
    except RuntimeError as error:
        # By name, so that torch is not imported for it.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        remedy = LESS_MEMORY.get(name, "use a larger GPU")
        print(f"error: the GPU's memory is full; {remedy}", file=sys.stderr)
        return 1
    except (VggrpoError, ValueError, FloatingPointError, OSError) as error:
        if os.environ.get("VGGRPO_DEBUG") == "1":
            traceback.print_exc()
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Lets `vggrpo --help | head` end quietly."""
    try:
        yield
    except BrokenPipeError:
        _discard_output()


def _discard_output() -> None:
    """The reader of our output has left; Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: Exception) -> str:
    from vggrpo.config.errors import VggrpoError

    if isinstance(error, VggrpoError) or not isinstance(error, OSError) or error.strerror is None:
        known = isinstance(error, VggrpoError | OSError)
        return str(error) if known else f"{error} (VGGRPO_DEBUG=1 shows where)"
    place = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left on the disk{place}; free some and run the command again"
    return f"{error.strerror}{place}"


def _help(prefix: str, commands: Mapping[str, Command | Group]) -> str:
    width = max(map(len, commands)) + 2
    lines = [f"usage: {prefix} COMMAND [--help] ...", "", "commands:"]
    lines += [f"  {name:<{width}}{command.help}" for name, command in commands.items()]
    lines += ["", f"`{prefix} COMMAND --help` lists a command's settings."]
    return "\n".join(lines)


def _unknown(prefix: str, word: str, commands: Mapping[str, Command | Group]) -> str:
    close = get_close_matches(word.replace("_", "-"), list(commands), n=1)
    hint = f"did you mean {close[0]}?" if close else f"commands are {', '.join(commands)}"
    return f"error: {prefix} has no command {word}; {hint}"


def _print_version() -> int:
    from vggrpo import __version__

    print(f"vggrpo {__version__}")
    return 0
