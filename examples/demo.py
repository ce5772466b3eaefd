"""The whole way in one command: text dialogues -> speech -> codec -> duplex model -> a full-duplex conversation.

    python examples/demo.py                    what `make demo` runs: results in runs/demo
    python examples/demo.py --quick            every stage, a few steps each: does it all run? results in runs/demo_quick

Each stage is one of the other examples, in a process of its own. A stage whose command, settings and inputs have not
changed since it finished is not repeated; one that was interrupted goes on where it can.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nemo_duplex.data.files import atomic

EXAMPLES = Path(__file__).resolve().parent
CONF = EXAMPLES.parent / "conf" / "demo"
console = Console()


@dataclass(frozen=True)
class Stage:
    """script: an example; config: its yaml in conf/demo; result: what it leaves in the demo's folder.

    quick: settings that make it short; always: settings of every run, with {folder} for the demo's folder.
    """

    name: str
    script: str
    config: str
    result: str
    quick: tuple[str, ...]
    always: tuple[str, ...] = ()


HIBARI = "[{name: low, warp: 0.78}, {name: deep, warp: 0.85}, {name: bright, warp: 1.16}, {name: fast, warp: 1.08}]"
STAGES = (
    Stage(
        "data",
        "duplex_prepare_data.py",
        "prepare",
        "data/train.jsonl.gz",
        (
            "sessions=16",
            "held_out_sessions=2",
            "turns=[2,2]",
            f"user_voices={HIBARI}",
            "held_out_voices=[{name: low2, warp: 0.92}]",
        ),
    ),
    Stage(
        "codec", "voice_codec_finetune.py", "voice_codec", "codec/voice_tiny.nemo", ("steps=20", "validate_every=20")
    ),
    Stage("codes", "duplex_encode_codes.py", "encode", "shar/held_out", ()),
    Stage(
        "train",
        "duplex_train.py",
        "train",
        "duplex_tiny.nemo",
        ("trainer.max_steps=8", "model.optim.sched.warmup_steps=2"),
    ),
    Stage(
        "evaluate",
        "duplex_evaluate.py",
        "evaluate",
        "report.json",
        ("sessions=2", "rows=2"),
        ("stages={folder}/stages_s.json",),
    ),
)


class Record:
    """What has finished in a folder: a fingerprint and the seconds of each stage, in stages.json."""

    def __init__(self, folder: Path):
        self.path = folder / "stages.json"
        self.done = json.loads(self.path.read_text()) if self.path.exists() else {}

    def keep(self, name: str, fingerprint: str, seconds: float) -> None:
        self.done[name] = {"fingerprint": fingerprint, "seconds": round(seconds, 1)}
        with atomic(self.path) as part:
            part.write_text(json.dumps(self.done, indent=2))

    def write_seconds(self, path: Path) -> None:
        """Stage name -> seconds, for the report."""
        path.write_text(json.dumps({name: item["seconds"] for name, item in self.done.items()}))


def run(stages: tuple[Stage, ...], folder: Path, quick: bool) -> None:
    """Runs the stages in order, each in its own process."""
    folder.mkdir(parents=True, exist_ok=True)
    record, fingerprint = Record(folder), ""
    for stage in stages:
        overrides = (*(stage.quick if quick else ()), *(item.format(folder=folder) for item in stage.always))
        settings = "\n".join([fingerprint, stage.script, (CONF / f"{stage.config}.yaml").read_text(), *overrides])
        fingerprint = hashlib.sha256(settings.encode()).hexdigest()[:16]
        finished = stage.name in record.done and record.done[stage.name]["fingerprint"] == fingerprint
        if finished and (folder / stage.result).exists():
            console.print(f"[green]{stage.name}[/]: finished before, {record.done[stage.name]['seconds']} s")
            continue
        console.rule(f"[bold]{stage.name}[/]: examples/{stage.script}")
        record.write_seconds(folder / "stages_s.json")
        started = time.perf_counter()
        command = [
            sys.executable,
            str(EXAMPLES / stage.script),
            f"--config-path={CONF}",
            f"--config-name={stage.config}",
        ]
        done = subprocess.run([*command, *overrides], env=_environment(folder), check=False)  # noqa: S603
        if done.returncode:
            sys.exit(
                f"stage {stage.name} failed ({done.returncode}); what is finished is kept: run the demo again to go on"
            )
        record.keep(stage.name, fingerprint, time.perf_counter() - started)


def _environment(folder: Path) -> dict[str, str]:
    """The stages import the package from here, write to `folder` and reach no hub.

    Idle threads sleep: where they spin (the default), a machine with anything else to do is ten times slower.
    """
    path = os.pathsep.join(filter(None, [str(EXAMPLES.parent), os.environ.get("PYTHONPATH")]))
    ours = {"PYTHONPATH": path, "DEMO_DIR": str(folder), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **ours}


def summary(folder: Path) -> Table:
    """What there is to hear, see and read, and how long each stage took."""
    table = Table("result", "what it is", title="The demo")
    for name, what in (
        ("conversation.wav", "a held-out session: the user left, the agent right"),
        ("timeline.png", "who speaks when, the agent's text, barge-ins"),
        ("report.json", "every figure"),
        ("duplex_tiny.nemo", "the model"),
    ):
        table.add_row(str(folder / name), what)
    done = Record(folder).done
    table.caption = ", ".join(f"{name} {item['seconds']:.0f} s" for name, item in done.items())
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps of every stage")
    parser.add_argument("--output", type=Path, help="folder of the results")
    arguments = parser.parse_args()
    folder = (arguments.output or Path("runs") / ("demo_quick" if arguments.quick else "demo")).resolve()
    run(STAGES, folder, arguments.quick)
    console.print(summary(folder))


if __name__ == "__main__":
    main()
