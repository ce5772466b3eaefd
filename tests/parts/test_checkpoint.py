"""A `.nemo` comes back as it was saved, from our connector and from NeMo's; a hostile one is refused with nothing done."""

import os
import re
import signal
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from nemo.core import ModelPT
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from omegaconf import OmegaConf
from parts import hostile, stand_in
from parts.stand_in import built, connector

from nemo_duplex.parts import checkpoint_checks
from nemo_duplex.parts.checkpoint import (
    CODEC_TARGETS,
    UnsafeCheckpointError,
    check_model_config,
    verify_checkpoint,
    written_whole,
)

ROOT = Path(__file__).parents[2]
CODEC_MODULES = "nemo.collections.tts.modules.audio_codec_modules."


def restored(path: Path):
    return stand_in.load().StandIn.restore_from(str(path), map_location="cpu", save_restore_connector=connector())


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    built(folder).save_to(folder / "sound.nemo")
    return folder / "sound.nemo"


@pytest.fixture(scope="module")
def files(sound) -> dict[str, bytes]:
    with tarfile.open(sound) as tar:
        return {member.name.removeprefix("./"): tar.extractfile(member).read() for member in tar}


def tiny_codec() -> dict:
    losses = "nemo.collections.tts.losses.audio_codec_loss."
    down, up, resolutions = [2, 3, 6, 7, 7], [7, 7, 6, 3, 2], [[128, 32, 128]]
    stft = "nemo.collections.tts.modules.encodec_modules.MultiResolutionDiscriminatorSTFT"
    period = {"_target_": CODEC_MODULES + "MultiPeriodDiscriminator"}
    discriminators = [{"_target_": stft, "resolutions": resolutions}, period]
    encoder = {"down_sample_rates": down, "encoded_dim": 16, "base_channels": 2, "resblock_dilation_sizes": [1]}
    decoder = {"up_sample_rates": up, "input_dim": 16, "base_channels": 32, "resblock_dilation_sizes": [1]}
    quantizer = {"num_groups": 4, "num_levels_per_group": [9, 8, 8, 7]}
    return {
        "sample_rate": 22050,
        "samples_per_frame": 1764,
        "commit_loss_scale": 0.0,
        "loss_resolutions": resolutions,
        "mel_loss_dims": [5],
        "audio_encoder": {"_target_": CODEC_MODULES + "HiFiGANEncoder", **encoder},
        "audio_decoder": {"_target_": CODEC_MODULES + "CausalHiFiGANDecoder", **decoder},
        "vector_quantizer": {"_target_": CODEC_MODULES + "GroupFiniteScalarQuantizer", **quantizer},
        "discriminator": {"_target_": CODEC_MODULES + "Discriminator", "discriminators": discriminators},
        "generator_loss": {"_target_": losses + "GeneratorSquaredLoss"},
        "discriminator_loss": {"_target_": losses + "DiscriminatorSquaredLoss"},
        "optim": {"_target_": "torch.optim.Adam", "lr": 2e-4, "sched": {"name": "ExponentialLR", "gamma": 0.998}},
        "train_ds": None,
    }


def assert_same(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_round_trip_twice_with_artifact_and_nested_codec(tmp_path):
    model = built(tmp_path, tiny_codec())
    model.codec.cfg.train_ds = {"dataset": {"_target_": "nemo.collections.tts.data.vocoder_dataset.VocoderDataset"}}
    model.save_to(tmp_path / "one.nemo")
    again = restored(tmp_path / "one.nemo")
    (tmp_path / "words.txt").unlink()
    again.save_to(tmp_path / "one.nemo")  # onto the file that it came from: its artifact is read from there
    last = restored(tmp_path / "one.nemo")
    assert type(last) is stand_in.load().StandIn and last.words == "hello"
    assert_same(model, last)


def test_stock_nemo_restores_our_file_and_we_restore_stock_nemos(sound, tmp_path):
    model = ModelPT.restore_from(str(sound), map_location="cpu")
    assert_same(model, restored(sound))
    model.cfg.train_ds = {"shar_path": "/data/of/the/one/who/trained"}
    SaveRestoreConnector().save_to(model, str(tmp_path / "stock.nemo"))
    assert_same(model, restored(tmp_path / "stock.nemo"))
    assert restored(tmp_path / "stock.nemo").cfg.train_ds is None


def test_a_saved_file_names_neither_owner_nor_data(tmp_path):
    model = built(tmp_path)
    model.cfg.train_ds = {"shar_path": "/home/somebody/data"}
    model.save_to(tmp_path / "one.nemo")
    with tarfile.open(tmp_path / "one.nemo") as tar:
        assert {(member.uid, member.uname) for member in tar} == {(0, "")}
    assert b"somebody" not in (tmp_path / "one.nemo").read_bytes()


def test_save_refuses_what_would_not_restore_and_keeps_the_old_file(sound, tmp_path):
    model = built(tmp_path)
    model.save_to(tmp_path / "one.nemo")
    before = (tmp_path / "one.nemo").read_bytes()
    model.layer.weight.data[0, 0] = float("inf")
    with pytest.raises(UnsafeCheckpointError, match=r"'layer.weight' has values that are not finite"):
        model.save_to(tmp_path / "one.nemo")
    model.layer.weight.data.zero_()
    model.cfg.note = "/a/local/path"
    with pytest.raises(UnsafeCheckpointError, match="'note': reaches outside"):
        model.save_to(tmp_path / "one.nemo")
    assert (tmp_path / "one.nemo").read_bytes() == before


def test_return_config_and_verify(sound, files):
    config = stand_in.load().StandIn.restore_from(str(sound), return_config=True, save_restore_connector=connector())
    assert config.width == 4 and config.tokenizer.path.startswith("nemo:")
    summary = verify_checkpoint(str(sound), stand_in.TARGET)
    assert (summary.target, summary.weights, summary.values) == (stand_in.TARGET, 2, 20)
    assert summary.files == {name: len(content) for name, content in files.items()}
    with pytest.raises(UnsafeCheckpointError, match=f"expected .*DuplexModel, got '{stand_in.TARGET}'"):
        verify_checkpoint(str(sound))


WATCHED = ("os.", "shutil.", "subprocess.", "socket.connect", "open")
READ_ONLY = ("os.listdir", "os.scandir", "os.walk", "os.chdir", "os.putenv", "os.unsetenv")
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen")
audit = {"on": False, "seen": []}


def record(event, args):
    if audit["on"] and event.startswith(WATCHED) and event not in READ_ONLY:
        writes = event != "open" or (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes:
            audit["seen"].append((event, str(args[0])))


@pytest.fixture
def actions():
    """What was written, run, deleted or connected to since the test began."""
    if "hooked" not in audit:
        sys.addaudithook(record)
        audit["hooked"] = True
    audit.update(on=True, seen=[])
    yield audit["seen"]
    audit["on"] = False


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_hostile_file_is_refused_and_nothing_is_done(kind, files, tmp_path, monkeypatch, actions):
    write, reason = hostile.KINDS[kind]
    scratch, file = tmp_path / "scratch", tmp_path / "hostile.nemo"
    scratch.mkdir()
    write(files, file)
    monkeypatch.chdir(scratch)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (scratch / "secret.txt").write_text("secret")
    actions.clear()
    with pytest.raises(UnsafeCheckpointError) as refusal:
        restored(file)
    outside = [action for action in actions if os.path.isabs(action[1]) and not action[1].startswith(str(scratch))]
    assert reason in str(refusal.value), str(refusal.value)
    assert not outside and not [action for action in actions if action[0] in RUNS]
    assert [entry.name for entry in scratch.iterdir()] == ["secret.txt"]
    assert not ModelPT._is_model_being_restored()


def test_the_payload_is_live(files, tmp_path, monkeypatch):
    """The control: with this setting NeMo's own connector runs what ours refuses."""
    hostile.KINDS["pickle in zip"][0](files, tmp_path / "hostile.nemo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(RuntimeError, match="Unexpected key"):
        stand_in.load().StandIn.restore_from(str(tmp_path / "hostile.nemo"), map_location="cpu")
    ModelPT._set_model_restore_state(is_being_restored=False)
    assert (tmp_path / hostile.TRACE).exists()


def test_folder_in_place_of_a_file_is_refused(sound, tmp_path):
    folder = connector()
    folder.model_extracted_dir = str(tmp_path)
    with pytest.raises(UnsafeCheckpointError, match="extracted folder"):
        stand_in.load().StandIn.restore_from(str(sound), save_restore_connector=folder)


def test_check_model_config_takes_a_dict_or_a_dictconfig():
    values = {"target": checkpoint_checks.DUPLEX_MODEL, "tokenizer": {"path": "nemo:a_words.json", "eos": "</s>"}}
    check_model_config(values)
    check_model_config(OmegaConf.create(values))
    check_model_config(values | {"codec": {"model": {"target": checkpoint_checks.CODEC_MODEL}}})
    with pytest.raises(UnsafeCheckpointError, match=r"'train_ds.shar_path': reaches outside .*: 'pipe:touch"):
        check_model_config(values | {"train_ds": {"shar_path": ["pipe:touch ran"]}})
    with pytest.raises(UnsafeCheckpointError, match="expected .*DuplexModel, got None"):
        check_model_config({})


def test_every_class_that_our_configs_name_is_allowed():
    sources = [*(ROOT / "conf").rglob("*.yaml"), ROOT / "nemo_duplex" / "config.py"]
    named = {
        name for path in sources for name in re.findall(r"_target_\W+(\w+\.[\w.]+)", path.read_text(encoding="utf-8"))
    }
    assert named <= CODEC_TARGETS


def test_every_allowed_class_exists():
    for target in CODEC_TARGETS:
        module, name = target.rsplit(".", 1)
        __import__(module)
        assert isinstance(getattr(sys.modules[module], name), type), target


@pytest.mark.parametrize("at", ["half written", "before the rename"])
def test_a_kill_leaves_the_old_file(at, tmp_path):
    target = tmp_path / "one.nemo"
    target.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        if at == "before the rename":
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        with written_whole(str(target)) as file:
            file.write(b"new" * 1000)
            if at == "half written":
                os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    with written_whole(str(target)) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"
