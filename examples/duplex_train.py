"""Trains a duplex model from Lhotse cuts with cached codes, by Lightning and NeMo's exp_manager, and saves a `.nemo`.

    python examples/duplex_train.py                                  # conf/duplex_train.yaml: the paper's sizes
    python examples/duplex_train.py --config-path ../conf/demo --config-name train

A run that was interrupted goes on from its last checkpoint when exp_manager.resume_if_exists is set.
"""

import lightning.pytorch as pl
from nemo.core.config import hydra_runner
from nemo.utils.exp_manager import exp_manager
from nemo.utils.trainer_utils import resolve_trainer_cfg

from nemo_duplex.config import TrainConfig
from nemo_duplex.models import DuplexModel


@hydra_runner(config_path="../conf", config_name="duplex_train", schema=TrainConfig)
def main(config: TrainConfig) -> None:
    pl.seed_everything(config.seed, workers=True)
    trainer = pl.Trainer(**resolve_trainer_cfg(config.trainer))
    exp_manager(trainer, config.exp_manager)
    model = DuplexModel(config.model, trainer)
    trainer.fit(model)
    if not trainer.interrupted:
        model.save_to(config.save_to)


if __name__ == "__main__":
    main()
