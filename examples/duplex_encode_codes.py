"""Encodes the agent's stream once and keeps the codes beside the cuts, as Lhotse Shar.

    python examples/duplex_encode_codes.py                                     the demo's: conf/demo/encode.yaml
    python examples/duplex_encode_codes.py cuts=runs/mine codec=mine.nemo output=runs/mine/shar

Reads `<cuts>/train.jsonl.gz` and `held_out.jsonl.gz`; a finished split is not made again.
"""

import logging
import time

from nemo.core.config import hydra_runner

from nemo_duplex.config import EncodeConfig
from nemo_duplex.models.encode_cuts import encode_splits

log = logging.getLogger("encode")


@hydra_runner(config_path="../conf/demo", config_name="encode", schema=EncodeConfig)
def main(config):
    started = time.monotonic()
    encode_splits(config)
    log.info("done in %.0f s: %s", time.monotonic() - started, config.output)


if __name__ == "__main__":
    main()
