"""Every yaml under conf/ fits its schema, no yaml is without one, and a wrong key is an error that says what to do."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nemo_duplex import config

CONF = Path(__file__).parents[1] / "conf"
SCHEMAS = {
    "demo/prepare.yaml": "PrepareConfig",
    "demo/voice_codec.yaml": "VoiceCodecConfig",
    "demo/encode.yaml": "EncodeConfig",
    "demo/train.yaml": "TrainConfig",
    "demo/evaluate.yaml": "EvaluateConfig",
    "duplex_train.yaml": "TrainConfig",
    "voice_codec.yaml": "VoiceCodecConfig",
}
YAMLS = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*.yaml"))


def composed(name: str):
    """A yaml as hydra_runner gives it to its script."""
    path = CONF / name
    with initialize_config_dir(str(path.parent.resolve()), version_base=None):
        return compose(path.stem)


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_fits_its_schema(name):
    assert name in SCHEMAS, f"{name} has no schema: add it to SCHEMAS in {Path(__file__).name}"
    schema = getattr(config, SCHEMAS[name])
    merged = config.build(schema, composed(name))
    assert OmegaConf.get_type(merged) is schema


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_with_an_unknown_key_is_refused(name):
    values = OmegaConf.to_container(composed(name)) | {"no_such_key": 1}
    with pytest.raises(ValueError, match="no_such_key.*Every key stands in nemo_duplex/config.py: remove or rename it"):
        config.build(getattr(config, SCHEMAS[name]), values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"clock": {"frame_length": 80}}, "clock.frame_length"),
        ({"backbone": {"layers": "many"}}, "backbone.layers"),
        ({"perception": {"encoder": {"att_context": 70}}}, "perception.encoder.att_context"),
    ],
)
def test_errors_name_the_full_key(values, named):
    with pytest.raises(ValueError, match=f"ModelConfig: .*'{named}'.*remove or rename"):
        config.build(config.ModelConfig, values)


def test_defaults_stand_when_nothing_is_given():
    clock = config.clock_from(config.build(config.ModelConfig).clock)
    assert (clock.frame_ms, clock.user_hop, clock.agent_hop) == (80, 1280, 1764)
