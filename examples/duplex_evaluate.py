"""Restores a `.nemo`, streams held-out sessions through the engine as live users, and reports.

    python examples/duplex_evaluate.py                                    the demo's: conf/demo/evaluate.yaml
    python examples/duplex_evaluate.py model=mine.nemo cuts=mine/held_out.jsonl.gz output=runs/mine rows=8

Writes report.json, conversation.wav (user left, agent right) and timeline.png to `output`, and prints the report.
"""

from pathlib import Path

import torch
from nemo.core.config import hydra_runner
from rich.console import Console
from rich.table import Table

from nemo_duplex.config import EvaluateConfig
from nemo_duplex.metrics.speech import SpeechJudge
from nemo_duplex.models import DuplexModel
from nemo_duplex.streaming import evaluation_report as reports
from nemo_duplex.streaming.engine import DuplexEngine
from nemo_duplex.streaming.evaluation import read_held_out, score_session, stream_sessions


@hydra_runner(config_path="../conf/demo", config_name="evaluate", schema=EvaluateConfig)
def main(config):
    torch.set_num_threads(config.threads)
    output, stages_s = Path(config.output), reports.read_stages(config.stages)
    judge = SpeechJudge() if config.intelligibility else None
    with reports.timed(stages_s, "restore"):
        model = DuplexModel.restore_from(config.model)
    held_out = read_held_out(config.cuts, model.clock, config.sessions)
    with reports.timed(stages_s, "stream"):
        engine = DuplexEngine.from_model(model, config.rows)
        done = stream_sessions(engine, model.clock, held_out, model.tokenizer)
    scores = [score_session(streamed, model.clock, config.silence_dbfs) for streamed in done.sessions]

    shown = reports.most_telling(done.sessions, scores, config.show)
    alone = DuplexEngine.from_model(model, rows=1)
    with reports.timed(stages_s, "stream_alone"):
        live = stream_sessions(alone, model.clock, [held_out[shown]], model.tokenizer)
    report = reports.quality(scores) | reports.speed(live, done, model.clock) | reports.sizes(model, alone.state_bytes)
    report["intelligibility"] = reports.intelligibility(done, model.clock, judge, stages_s)
    report |= {"stages_s": stages_s, "silence_dbfs": config.silence_dbfs, "shown": held_out[shown].id}

    reports.write_conversation(done.sessions[shown], model.clock, output / "conversation.wav")
    reports.write_timeline(done.sessions[shown], scores[shown], model.clock, model.tokenizer, output / "timeline.png")
    reports.write_report(report, output / "report.json")
    print_table(report, title=f"{config.model} on {len(held_out)} sessions")


def print_table(report, title):
    table = Table("", "value", title=title)
    for row in reports.table_rows(report):
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
