"""`n2n-deploy export`: from a trained network to the bundle to ship."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, out, print_json


def export_command(
    checkpoint: Annotated[Path, typer.Argument(help="model.pt from n2n-deploy train.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The bundle to write, e.g. model.n2n.", show_default=False),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a trained network to one file that any node can verify and run.

    [bold]n2n-deploy export Run/model.pt -o model.n2n[/]

    The bundle holds the network as ONNX in float32 and float16, its recipe, and golden vectors: inputs with PyTorch's
    outputs, which every node reproduces before it denoises. The export compares each ONNX model with PyTorch; if one
    differs, nothing is written. The nodes need no PyTorch.
    """
    del config
    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.cli.bundle import print_summary, summary
    from n2n_deploy.export import export_bundle

    with err.status("exporting and comparing with PyTorch …", spinner="line"):
        bundle = Bundle.open(export_bundle(checkpoint, output))
    if as_json:
        print_json(summary(bundle))
    else:
        print_summary(bundle)
        out.print(f"next: n2n-deploy denoise micrographs.star {escape(str(output))} -o Denoised", soft_wrap=True)
