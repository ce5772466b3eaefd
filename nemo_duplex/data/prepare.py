"""The whole way from a file of dialogues to a duplex data set.

    questions.jsonl -> compose -> dialogues --+-- voices: clips (cached) --+-- place -> mix -> cuts
                                              +-- tokenizer                +-- the agent's utterances, for the codec

    <output>/train.jsonl.gz  held_out.jsonl.gz  agent_utterances.jsonl.gz  tokenizer.json
             sessions/<id>.user.wav  <id>.agent.wav      voices/<voice>/<hash>.wav

Boundary: puts the parts of data/ together; each of them does its own work.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import soundfile
from lhotse import MonoCut
from tqdm import tqdm

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import PrepareConfig, TokenizerConfig, VoiceConfig, clock_from
from nemo_duplex.data.dialogue import Dialogue, compose, read_dialogues
from nemo_duplex.data.manifest import Session, utterance_cut, write_cuts, write_session
from nemo_duplex.data.text_stream import TextTokenizer, agent_text, train_tokenizer
from nemo_duplex.data.timeline import SpokenTurn, place
from nemo_duplex.data.voices import Clip, synthesize

log = logging.getLogger(__name__)


@dataclass
class Plan:
    """One session before it has sound: its split, its dialogue, and the clip of each turn."""

    split: str
    dialogue: Dialogue
    user_voice: VoiceConfig
    clips: list[Clip]


def prepare(config: PrepareConfig) -> dict[str, list[MonoCut]]:
    """Makes the data set and returns its cuts by the name of their manifest.

    Nothing is written before the config and all dialogues are found good; the manifests are written last, each whole.
    """
    check_voices(config)
    clock, output = clock_from(config.clock), Path(config.output)
    dialogues = read_dialogues(config.questions)
    plans = plan(dialogues, config, clock)
    tokenizer = _tokenizer(dialogues, config)
    utterances = _utterances(dialogues, config, clock)
    synthesize(utterances + [clip for one in plans for clip in one.clips], output / "voices", config.workers)
    cuts = {"train": [], "held_out": []}
    for one in tqdm(plans, desc="mix"):
        cuts[one.split].append(_session(one, config, clock, tokenizer))
    cuts["agent_utterances"] = [utterance_cut(clip.path(output / "voices"), clip.text, clock) for clip in utterances]
    for name, chosen in cuts.items():
        write_cuts(chosen, output / f"{name}.jsonl.gz")
        log.info("%s: %d cuts, %.1f minutes", name, len(chosen), sum(cut.duration for cut in chosen) / 60)
    return cuts


def check_voices(config: PrepareConfig) -> None:
    """Every voice has a name and a sound of its own, so that a held-out voice is not heard in training."""
    voices = [config.agent_voice, *config.user_voices, *config.held_out_voices]
    for kind, keys in (
        ("name", [voice.name for voice in voices]),
        ("backend, speaker and warp", [(voice.backend, voice.speaker, voice.warp) for voice in voices]),
    ):
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"two voices share the {kind} {twice!r}: give each voice its own, in one list only")
    for split, sessions, chosen in (
        ("user_voices", config.sessions, config.user_voices),
        ("held_out_voices", config.held_out_sessions, config.held_out_voices),
    ):
        if sessions and not chosen:
            raise ValueError(f"{split} is empty, {sessions} sessions need at least one voice: add one")


def plan(dialogues: list[Dialogue], config: PrepareConfig, clock: FrameClock) -> list[Plan]:
    """The sessions of both splits; voices take turns, and a session has one user voice."""
    plans = []
    for split, count, voices in (
        ("train", config.sessions, config.user_voices),
        ("held_out", config.held_out_sessions, config.held_out_voices),
    ):
        for index, dialogue in enumerate(compose(dialogues, count, tuple(config.turns), config.seed, split)):
            voice = voices[index % len(voices)]
            clips = [_clip(turn.role, turn.text, voice, config, clock) for turn in dialogue.turns]
            plans.append(Plan(split, dialogue, voice, clips))
    return plans


def _clip(role: str, text: str, user_voice: VoiceConfig, config: PrepareConfig, clock: FrameClock) -> Clip:
    if role == "agent":
        return Clip(config.agent_voice, text, clock.agent_sample_rate, config.level_dbfs, config.edge_s)
    return Clip(user_voice, text, clock.user_sample_rate, config.level_dbfs, config.edge_s)


def _utterances(dialogues: list[Dialogue], config: PrepareConfig, clock: FrameClock) -> list[Clip]:
    """Each different sentence of the agent, once."""
    texts = dict.fromkeys(turn.text for dialogue in dialogues for turn in dialogue.turns if turn.role == "agent")
    return [_clip("agent", text, config.agent_voice, config, clock) for text in texts]


def _tokenizer(dialogues: list[Dialogue], config: PrepareConfig) -> TextTokenizer | None:
    if not config.vocabulary:
        return None
    texts = [turn.text for dialogue in dialogues for turn in dialogue.turns]
    path = str(Path(config.output) / "tokenizer.json")
    return train_tokenizer(texts, config.vocabulary, TokenizerConfig(path=path))


def _session(one: Plan, config: PrepareConfig, clock: FrameClock, tokenizer: TextTokenizer | None) -> MonoCut:
    output = Path(config.output)
    clips = [clip.path(output / "voices") for clip in one.clips]
    spoken = [
        SpokenTurn(turn.role, soundfile.info(path).duration)
        for turn, path in zip(one.dialogue.turns, clips, strict=True)
    ]
    timeline = place(spoken, config.timeline, clock, f"{config.seed} {one.dialogue.id}")
    session = Session(one.dialogue, timeline, clips, one.user_voice.name)
    cut = write_session(session, output / "sessions", clock, config.timeline.cut_fade_s)
    if tokenizer:
        agent_text(cut, timeline.frames, tokenizer, clock)
    return cut
