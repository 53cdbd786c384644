"""`n2n-deploy inspect` and `verify`: what a bundle holds, and whether it gives the same results here as at export."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from n2n_deploy.cli.common import ConfigOption, JsonOption, out, print_json
from n2n_deploy.cli.options import (
    DeviceOption,
    EngineOption,
    PrecisionOption,
    ThreadsOption,
    TrustedKeysOption,
    gather,
)
from n2n_deploy.core.options import ComputeOptions

if TYPE_CHECKING:
    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.bundle.manifest import Manifest

BundleArgument = Annotated[Path, typer.Argument(help="The bundle, MODEL.n2n, or general.", show_default=False)]


def inspect_command(bundle: BundleArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what a bundle holds: its recipe, network, training, parity with PyTorch, and members.

    Only the manifest is checked; [bold]n2n-deploy verify[/] checks every byte and runs the network.
    """
    del config
    from n2n_deploy.bundle.archive import Bundle

    opened = Bundle.open(bundle)
    if as_json:
        print_json(summary(opened))
    else:
        print_summary(opened)


def verify_command(
    ctx: typer.Context,
    bundle: BundleArgument,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    engine: EngineOption = None,
    precision: PrecisionOption = None,
    trusted_keys: TrustedKeysOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of a bundle, and run its golden vectors on this machine.

    The outputs must equal those of PyTorch at export within the tolerance in the manifest.
    """
    del config
    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.engines.select import choose_session

    compute = gather(ctx, ComputeOptions)
    opened = Bundle.open(bundle)
    opened.verify_members()
    choice = choose_session(
        opened,
        compute.device,
        compute.threads,
        engine=compute.engine,
        precision=compute.precision,
        trusted_keys=compute.trusted_keys,
    )
    choice.session.close()
    tolerance = opened.manifest.tolerance[choice.precision]
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "short_hash": opened.short_hash,
                "members": len(opened.manifest.members),
                "session": choice.session.name,
                "precision": choice.precision,
                "deviation": choice.deviation.model_dump(),
                "tolerance": tolerance.model_dump(),
                "rejected_engines": choice.rejected_engines,
            }
        )
        return
    for name, reason in choice.rejected_engines.items():
        out.print(f"[yellow]{name} rejected:[/] {escape(reason)}", soft_wrap=True)
    out.print(f"[green]intact:[/] all {len(opened.manifest.members)} members of {escape(str(bundle))}")
    out.print(
        f"[green]works:[/] {choice.session.name}, {choice.precision}, differs from PyTorch by at most "
        f"{choice.deviation.max:.1e} (rms {choice.deviation.rms:.1e}) standard deviations; "
        f"{tolerance.max:.0e} (rms {tolerance.rms:.0e}) are allowed",
        soft_wrap=True,
    )


def summary(bundle: "Bundle") -> dict[str, Any]:
    """Return the contents of manifest and recipe, for `--json`."""
    return {
        "bundle": str(bundle.path),
        "short_hash": bundle.short_hash,
        "signed": bundle.signature is not None,
        "recipe": bundle.recipe.model_dump(),
        "accepts": bundle.accepts and bundle.accepts.model_dump(),
        "manifest": bundle.manifest.model_dump(mode="json"),
    }


def print_summary(bundle: "Bundle") -> None:
    """Print the manifest and the recipe in tables."""
    manifest, recipe = bundle.manifest, bundle.recipe
    facts = _table(f"{bundle.path}", "", "")
    for name, value in {
        "model": f"{bundle.short_hash}, preset {manifest.preset}",
        "made": f"{manifest.created:%Y-%m-%d %H:%M} UTC by n2n-deploy {manifest.package_version}",
        "signed": "no" if bundle.signature is None else "yes",
        "resolution": _resolution(bundle),
        "high-pass": f"{recipe.highpass:g} Å",
        "phase flip": _phase_flip(bundle),
        "int8": _int8(manifest),
        "receptive field": f"{manifest.halo} network pixels on each side",
        **{f"training: {name}": value for name, value in _training(manifest.training)},
    }.items():
        facts.add_row(name, escape(str(value)))
    parity = _table("ONNX Runtime against PyTorch, in standard deviations", "input", "precision", "worst", "rms")
    for result in manifest.parity:
        shape = "×".join(map(str, result.shape))
        parity.add_row(shape, result.precision, f"{result.deviation.max:.1e}", f"{result.deviation.rms:.1e}")
    members = _table("members", "name", "bytes", "SHA-256")
    for name, member in manifest.members.items():
        members.add_row(escape(name), f"{member.size:,}".replace(",", " "), member.sha256[:16] + "…")
    for table in (facts, parity, members):
        out.print(table)


def _resolution(bundle: "Bundle") -> str:
    """The resolutions that the network takes."""
    own = bundle.recipe.max_resolution
    if bundle.accepts is None:
        return f"{own:g} Å (network pixels of {own / 2:g} Å)"
    finest, coarsest = bundle.accepts.max_resolution
    return f"{finest:g} to {coarsest:g} Å, by default {own:g} Å (network pixels of {own / 2:g} Å)"


def _phase_flip(bundle: "Bundle") -> str:
    if bundle.accepts is not None and bundle.accepts.either_phase:
        return "either: yes for tables with a CTF, otherwise no"
    return "yes" if bundle.recipe.phase_flip else "no"


def _int8(manifest: "Manifest") -> str:
    """Whether the bundle offers int8, and at what cost, or why not."""
    if manifest.int8 is None:
        return f"not offered: {manifest.int8_refused or 'exported before it was supported'}"
    return f"offered, loses {manifest.int8.signal_loss:.2%} of the recovered signal"


def _training(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Facts of the training in the manifest, as name and value; the recipe is printed elsewhere."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _training({key: item for key, item in value.items() if key != "recipe"})
        elif value is not None:
            yield name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=None, show_header=any(columns), pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
