"""The command line, `n2n-deploy`: composes the other parts, and imports them only when a command needs them."""

from n2n_deploy.cli.app import main

__all__ = ["main"]
