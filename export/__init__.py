"""Export: from a training's checkpoint to the bundle that is shipped. Needs PyTorch; the nodes that denoise do not."""

from n2n_deploy.export.from_checkpoint import export_bundle

__all__ = ["export_bundle"]
