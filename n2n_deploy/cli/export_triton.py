"""`n2n-deploy export-triton`: a bundle as a model of NVIDIA's Triton Inference Server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from n2n_deploy.cli.common import ConfigOption, JsonOption, print_json, print_rows
from n2n_deploy.core.errors import UsageError

if TYPE_CHECKING:
    from n2n_deploy.core.options import Precision


def export_triton_command(
    model: Annotated[Path, typer.Argument(help="The bundle (MODEL.n2n, or general).", show_default=False)],
    repository: Annotated[
        Path, typer.Argument(help="Triton's model repository, a folder; made if there is none.", show_default=False)
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the model; the network is NAME_network.")] = "denoise",
    place: Annotated[
        str,
        typer.Option("--device", help="gpu: the server runs the network through TensorRT. cpu: on its processors."),
    ] = "gpu",
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="fp32 or fp16; int8 on a CPU. By default fp16 on a GPU, fp32 on a CPU."),
    ] = None,
    instances: Annotated[
        int, typer.Option("--instances", min=1, help="Micrographs that the server denoises concurrently.")
    ] = 2,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a bundle into a model repository of NVIDIA Triton.

    [bold]n2n-deploy export-triton model.n2n Repository[/]

    Two models are added, or new versions of them: [bold]denoise_network[/], the ONNX network for the ONNX Runtime
    backend with TensorRT, and [bold]denoise[/], which takes a raw micrograph with its optics and CTF and returns it
    denoised. The Python of the server needs n2n-deploy (pip install n2n-deploy in its container). Before its first
    micrograph, the server reproduces the bundle's golden vectors.
    """
    del config
    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.interop.triton_repository import write_repository

    if place not in ("cpu", "gpu"):
        raise UsageError(f"invalid --device {place!r}; choose gpu or cpu, where the server runs the network")
    if precision not in (None, "fp32", "fp16", "int8"):
        raise UsageError(f"invalid --precision {precision!r}; choose fp32, fp16 or, on a CPU, int8")
    folder, version = write_repository(
        Bundle.open(model),
        repository,
        name=name,
        device=cast(Literal["cpu", "gpu"], place),
        precision=cast("Precision | None", precision),
        instances=instances,
    )
    if as_json:
        print_json({"model": name, "version": version, "folder": str(folder)})
        return
    print_rows([("model", str(folder)), ("network", f"{folder}_network"), ("version", str(version))])
    print_rows([("next", f"tritonserver --model-repository={repository.absolute()}")])
