"""Sessions as Lhotse cuts, the layout that NeMo's speechlm2 reads, and the check of any cut that claims to have it.

    MonoCut  id, start 0, channel 0, duration = whole frames
      .recording       the user's stream, mono, 16 kHz
      .supervisions    one for each turn: speaker "user" | "agent", start, duration, text (all that the turn was to say)
                       of the agent's turns also custom["interrupted"]
      .custom          target_audio (Recording): the agent's stream, mono, 22.05 kHz, of the same length
                       user_voice: name | events: [{"kind": "barge_in", "user_onset": s, "agent_stop": s}]

Boundary: samples and placed turns in, wav files and cuts out; no synthesis. Files are whole or absent (files.py).
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from lhotse import AudioSource, CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio.utils import AudioLoadingError, DurationMismatchError
from lhotse.cut import Cut

from nemo_duplex.clock import FrameClock
from nemo_duplex.data.dialogue import ROLES, Dialogue
from nemo_duplex.data.files import atomic, read_wav, write_wav
from nemo_duplex.data.timeline import PlacedTurn, Timeline

SECONDS_DIGITS = 6


@dataclass
class Session:
    """All that one session is made of: what is said, when, and the clip of each turn at the rate of its stream."""

    dialogue: Dialogue
    timeline: Timeline
    clips: list[Path]
    user_voice: str


def lay(turns: list[PlacedTurn], clips: list[np.ndarray], samples: int, rate: int, fade_s: float) -> np.ndarray:
    """One stream: every clip at its turn's place, silence elsewhere; an interrupted turn fades out where it is cut."""
    stream = np.zeros(samples, np.float32)
    for turn, clip in zip(turns, clips, strict=True):
        start, count = round(turn.start * rate), min(len(clip), round(turn.duration * rate))
        stream[start : start + count] = clip[:count]
        if turn.interrupted:
            fade = min(count, round(fade_s * rate))
            stream[start + count - fade : start + count] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return stream


def write_session(session: Session, folder, clock: FrameClock, fade_s: float) -> MonoCut:
    """Mixes both streams, writes `<folder>/<id>.user.wav` and `.agent.wav`, and returns the cut."""
    recordings = {}
    for speaker, rate, hop in (
        ("user", clock.user_sample_rate, clock.user_hop),
        ("agent", clock.agent_sample_rate, clock.agent_hop),
    ):
        chosen = [
            (turn, clip)
            for turn, clip in zip(session.timeline.turns, session.clips, strict=True)
            if turn.speaker == speaker
        ]
        clips = [read_wav(clip, rate) for _, clip in chosen]
        stream = lay([turn for turn, _ in chosen], clips, session.timeline.frames * hop, rate, fade_s)
        path = Path(folder) / f"{session.dialogue.id}.{speaker}.wav"
        write_wav(path, stream, rate)
        recordings[speaker] = recording_of(path, path.stem, rate, len(stream))
    return _session_cut(session, recordings["user"], recordings["agent"])


def recording_of(path, name: str, rate: int, samples: int) -> Recording:
    """The manifest of a mono file that was just written, without reading it back."""
    source = AudioSource(type="file", channels=[0], source=str(Path(path).resolve()))
    return Recording(id=name, sources=[source], sampling_rate=rate, num_samples=samples, duration=samples / rate)


def _session_cut(session: Session, user: Recording, agent: Recording) -> MonoCut:
    name = session.dialogue.id
    supervisions = [
        SupervisionSegment(
            id=f"{name}-{index}",
            recording_id=user.id,
            start=round(placed.start, SECONDS_DIGITS),
            duration=round(placed.duration, SECONDS_DIGITS),
            text=turn.text,
            speaker=placed.speaker,
            custom={"interrupted": placed.interrupted} if placed.speaker == "agent" else None,
        )
        for index, (turn, placed) in enumerate(zip(session.dialogue.turns, session.timeline.turns, strict=True))
    ]
    events = [
        {
            key: round(value, SECONDS_DIGITS) if isinstance(value, float) else value
            for key, value in asdict(event).items()
        }
        for event in session.timeline.events
    ]
    custom = {"target_audio": agent, "user_voice": session.user_voice, "events": events}
    return MonoCut(
        name, start=0, duration=user.duration, channel=0, recording=user, supervisions=supervisions, custom=custom
    )


def utterance_cut(path, text: str, clock: FrameClock) -> MonoCut:
    """A cut of one whole utterance of the agent, for training a codec on its voice."""
    rate, name = clock.agent_sample_rate, Path(path).stem
    recording = recording_of(path, name, rate, len(read_wav(path, rate)))
    turn = SupervisionSegment(
        id=name, recording_id=name, start=0, duration=recording.duration, text=text, speaker="agent"
    )
    return MonoCut(name, start=0, duration=recording.duration, channel=0, recording=recording, supervisions=[turn])


def write_cuts(cuts: list[MonoCut], path) -> None:
    """Writes a manifest (.jsonl.gz), whole or not at all."""
    with atomic(path) as part:
        CutSet.from_cuts(cuts).to_file(part)


def validate_cut(cut: Cut, clock: FrameClock) -> None:
    """Checks a session's cut, its files and every sample.

    Raises:
        ValueError: naming the cut, the value and the remedy, for a recording that is absent, missing on disk,
            unreadable, not mono, at a wrong rate or with samples that are not finite numbers; for streams that differ
            by more than a frame; for a turn with no text, an unknown speaker, or times outside the session.
    """
    user, agent = check_streams(cut, clock)
    for turn in cut.supervisions:
        _check_turn(turn, cut, clock)
    for field, recording in (("recording", user), ("target_audio", agent)):
        _check_samples(recording, f"cut {cut.id!r}: {field}")


def check_streams(cut: Cut, clock: FrameClock) -> tuple[Recording, Recording]:
    """The user's and the agent's recording, after every check that needs no samples."""
    streams = []
    for field, party, rate in (
        ("recording", "user", clock.user_sample_rate),
        ("target_audio", "agent", clock.agent_sample_rate),
    ):
        if not cut.has(field) or not isinstance(getattr(cut, field), Recording):
            raise ValueError(
                f"cut {cut.id!r} has no {field}: add the {party}'s stream (mono, {rate} Hz) as its {field}"
            )
        check_recording(getattr(cut, field), rate, f"cut {cut.id!r}: {field}")
        streams.append(getattr(cut, field))
    user, agent = streams
    if abs(user.duration - agent.duration) > clock.frame_s + 1e-6:
        raise ValueError(
            f"cut {cut.id!r}: the user's stream lasts {user.duration:.3f} s and the agent's {agent.duration:.3f} s; "
            f"expected at most one frame ({clock.frame_s:g} s) of difference: record both from one start, or cut or "
            "pad them to one length"
        )
    return user, agent


def check_recording(recording: Recording, rate: int, where: str) -> None:
    """Mono, and stored at `rate` (not resampled to it while loading)."""
    if recording.num_channels != 1:
        raise ValueError(
            f"{where} has {recording.num_channels} channels; expected mono: store each party in a file of its own"
        )
    for transform in recording.transforms or []:
        if getattr(transform, "source_sampling_rate", rate) != rate:
            raise ValueError(
                f"{where} is stored at {transform.source_sampling_rate} Hz and resampled while loading; "
                f"expected {rate} Hz: convert the files once instead"
            )
    if recording.sampling_rate != rate:
        raise ValueError(
            f"{where} is at {recording.sampling_rate} Hz; expected {rate} Hz: convert the file or correct the clock"
        )


def _check_turn(turn: SupervisionSegment, cut: Cut, clock: FrameClock) -> None:
    where = f"cut {cut.id!r}, turn {turn.id!r}"
    if turn.speaker not in ROLES:
        raise ValueError(f"{where}: unknown speaker {turn.speaker!r}; expected one of {', '.join(ROLES)}: rename it")
    if not turn.text or not turn.text.strip():
        raise ValueError(
            f"{where} of the {turn.speaker} has no text ({turn.text!r}): write what is said, or remove the turn"
        )
    if turn.start < -1e-6 or turn.duration <= 0 or turn.end > cut.duration + clock.frame_s:
        raise ValueError(
            f"{where} lies at {turn.start:g} to {turn.end:g} s, the session is {cut.duration:g} s long: "
            "correct its times"
        )


def _check_samples(recording: Recording, where: str) -> None:
    for source in recording.sources:
        if source.type == "file":
            _check_file(source.source, recording, where)
    try:
        samples = recording.load_audio()
    except (AudioLoadingError, DurationMismatchError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{where} cannot be loaded ({reason}): restore it, or make its manifest again") from error
    if not np.isfinite(samples).all():
        bad = int(np.flatnonzero(~np.isfinite(samples).all(axis=0))[0])
        raise ValueError(f"{where} holds NaN or infinity, first at sample {bad}: repair the recording")


def _check_file(path: str, recording: Recording, where: str) -> None:
    if not Path(path).is_file():
        raise ValueError(
            f"{where}: the file {path} is missing: restore it, or make the manifest again where the files are now"
        )
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{where}: the file {path} is not readable audio ({error}): restore it") from error
    if recording.transforms:
        return
    found = (info.frames, info.channels, info.samplerate)
    expected = (recording.num_samples, recording.num_channels, recording.sampling_rate)
    if found != expected:
        raise ValueError(
            f"{where}: the file {path} has {found[0]} samples of {found[1]} channels at {found[2]} Hz, its manifest says "
            f"{expected[0]} of {expected[1]} at {expected[2]} Hz: restore the file, or make the manifest again"
        )
