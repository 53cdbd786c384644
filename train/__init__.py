"""Training a network on the even and odd halves of micrographs (S2.1 to S2.3). Needs torch, h5py and matplotlib."""

from n2n_deploy.train.checkpoint import Checkpoint, load_model
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.fit import Progress
from n2n_deploy.train.job import Preparing, train
from n2n_deploy.train.layers import Network
from n2n_deploy.train.model import PRESETS, add_weight_norm, build, fold_weight_norm
from n2n_deploy.train.patches import Preparation
from n2n_deploy.train.receptive_field import receptive_field
from n2n_deploy.train.starting_point import load_checkpoint
from n2n_deploy.train.store import PatchStore

__all__ = [
    "PRESETS",
    "Checkpoint",
    "Network",
    "PatchStore",
    "Preparation",
    "Preparing",
    "Progress",
    "TrainConfig",
    "add_weight_norm",
    "build",
    "fold_weight_norm",
    "load_checkpoint",
    "load_model",
    "receptive_field",
    "train",
]
