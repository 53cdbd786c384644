"""The front of error against cost: networks trained for equal time and for equal steps, where the truth is known.

    python -m benchmarks.front -o OUT [--candidates small,fast] [--seconds 60] [--steps 300] [--seeds 0,1,2]
        [--data simulated,real] [--train recombine=1,augment=false] [--figure front.png] [--json front.json]

Each candidate (`benchmarks.front_networks`) is trained by the product's own loop on simulated proteasome micrographs
close to focus (those of `benchmarks.quality`) and on the upper four fifths of the real micrograph in the package.
Measured are the true error on other simulated micrographs, as a share of the signal, and the recovered signal fraction
(RSF) on the real one's other rows.

Equal time is counted in steps, so that a busy machine does not matter: the seconds of CPU that a step of each candidate
takes in one thread are measured in turns, and each gets the steps that fit into `--seconds` of them. A run is kept in
OUT/runs.jsonl when it is done, and not done again; two processes may share an OUT with different `--seeds`. Every run
makes front.json and the figure anew from all runs that are there.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import IDEAL, describe, write_json
from benchmarks.front_figure import draw
from benchmarks.front_networks import CANDIDATES, kflop_per_pixel
from benchmarks.quality_tables import error
from n2n_deploy import data
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.demonstration import RECIPE, TRAINING_SHARE, write_pair
from n2n_deploy.device.processor import multiplies_bfloat16
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.star import read_micrographs
from n2n_deploy.simulate import simulate
from n2n_deploy.statistics.estimates import estimate
from n2n_deploy.train import TrainConfig, load_model, receptive_field
from n2n_deploy.train.fit import fit
from n2n_deploy.train.model import PRESETS, build, channels_last
from n2n_deploy.train.patches import prepare_patches
from n2n_deploy.train.run import make_optimiser
from n2n_deploy.train.store import PatchStore

Image = NDArray[np.float32]
Denoise = Callable[[Image], Image]


@dataclass(frozen=True)
class Task:
    """What a network is trained on, and how it is judged.

    Attributes:
        store: patches to train on.
        recipe: of the patches.
        measure: the figures of a denoiser of network inputs (h, w), by name.
    """

    store: PatchStore
    recipe: Recipe
    measure: Callable[[Denoise], dict[str, float]]


def main() -> None:
    options = _options()
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    PRESETS.update(CANDIDATES)  # the training loop knows networks by their preset's name
    settings = dict(pair.split("=") for pair in options.train.split(",") if pair)
    settings |= {"epochs": 1, "batch_size": options.batch_size, "schedule": "linear", "device": "cpu", "recipe": RECIPE}
    configs = {}
    for name in options.candidates.split(","):
        earlier = {"optimiser": "adam"} if name.startswith("wide") else {}  # as those networks were trained
        configs[name] = TrainConfig(preset=name, **(earlier | settings))
    costs = _costs(folder / "costs.json", configs)
    tasks = {name: {"simulated": simulated_task, "real": real_task}[name](folder) for name in options.data.split(",")}
    runs = folder / "runs.jsonl"
    for seed, equal, (name, config), (where, task) in itertools.product(
        map(int, filter(None, options.seeds.split(","))), options.equal.split(","), configs.items(), tasks.items()
    ):
        cost = cost_key(name, config)
        steps = round(options.seconds / costs[cost]["cpu_seconds_per_step"]) if equal == "time" else options.steps
        key = {"network": name, "training": options.train, "data": where, "equal": equal, "steps": steps}
        if any({**key, "seed": seed}.items() <= run.items() for run in _runs(runs)):
            continue
        changes = {"recipe": task.recipe, "seed": seed, "batches_per_epoch": steps}
        found = run_once(task, config.model_copy(update=changes))
        with runs.open("a") as stream:
            stream.write(json.dumps({**key, "seed": seed, "cost": cost, **found}) + "\n")
        print(time.strftime("[%H:%M:%S]"), key, found, flush=True)
    report = describe() | {"seconds": options.seconds, "steps": options.steps, "batch_size": options.batch_size}
    report |= {"bfloat16": multiplies_bfloat16(), "costs": costs, "results": summarise(_runs(runs))}
    report["runs"] = _runs(runs)
    write_json(options.json or folder / "front.json", report)
    if report["results"]:
        draw(options.figure or folder / "front.png", report)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--candidates", default=",".join(name for name in CANDIDATES if name != "paper"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of one core, for each run at equal time")
    parser.add_argument("--steps", type=int, default=300, help="of each run at equal steps")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data", default="simulated,real")
    parser.add_argument("--equal", default="time,steps")
    parser.add_argument("--train", default="", metavar="NAME=VALUE,…", help="other settings of TrainConfig")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def cost_key(name: str, config: TrainConfig) -> str:
    """What the cost of a step depends on."""
    return f"{name}, {config.method}"


def _runs(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def simulated_task(folder: Path) -> Task:
    """48 micrographs of 768² at 2 Å per pixel to train on and 4 to test, to 12 Å."""
    recipe = Recipe(max_resolution=12.0, patch_size=96)
    for name, count, seed in (("training", 48, 1), ("test", 4, 2)):
        if not (folder / name / "micrographs.star").exists():
            simulate(folder / name, count, (768, 768), 2.0, seed, dose=40.0, defocus=(1000.0, 4000.0), **IDEAL)
    images: list[tuple[Image, Image]] = []
    for micrograph in read_micrographs(folder / "test" / "micrographs.star", need_halves=True).micrographs:
        assert micrograph.even is not None
        assert micrograph.odd is not None
        clean = read_mrc(folder / "test" / "truth" / f"{micrograph.path.stem.removesuffix('_DW')}.mrc").data
        truth = preprocess(clean, micrograph.optics, micrograph.ctf, recipe)
        for path in (micrograph.even, micrograph.odd):
            half = preprocess(read_mrc(path).data, micrograph.optics, micrograph.ctf, recipe)
            images.append((half.image, truth.image * np.float32(half.mean / truth.mean * truth.std / half.std)))

    def measure(denoise: Denoise) -> dict[str, float]:
        power = sum(float(truth.var(dtype=np.float64)) for _, truth in images)
        return {"error": sum(error(denoise(noisy), truth) for noisy, truth in images) / power}

    return Task(_store(folder / "training" / "micrographs.star", recipe), recipe, measure)


def real_task(folder: Path) -> Task:
    """The upper four fifths of the micrograph in the package to train on, the rest to test, to 8 Å: the demo's pair."""
    halves = [half.astype(np.float32) for half in data.thin(data.micrograph_counts(), 0)]
    border = int(TRAINING_SHARE * halves[0].shape[0])
    star = write_pair(folder / "real", "training_0001", halves[0][:border], halves[1][:border])
    even, odd = (preprocess(half[border:], data.OPTICS, data.CTF, RECIPE).image for half in halves)

    def measure(denoise: Denoise) -> dict[str, float]:
        return {"rsf": float(estimate(even, odd, denoise(even), denoise(odd)).recovered_signal_fraction)}

    return Task(_store(star, RECIPE), RECIPE, measure)


def _store(star: Path, recipe: Recipe) -> PatchStore:
    table = read_micrographs(star, NamingOptions(project=star.parent, suffixes=("DW", "EVN", "ODD")), need_halves=True)
    return PatchStore(prepare_patches(table.micrographs, recipe, star.parent / "patches", overlap=0.5).files)


def run_once(task: Task, config: TrainConfig) -> dict[str, float]:
    """Train a candidate and measure it."""
    with tempfile.TemporaryDirectory() as scratch:
        began = time.process_time()
        model = load_model(fit(task.store, Path(scratch), config))
        seconds = time.process_time() - began
    if model.summary["ended"] != "complete":
        raise SystemExit("interrupted; what is complete is in runs.jsonl")
    network = model.network()

    def denoise(image: Image) -> Image:
        with torch.inference_mode():
            output: Image = network(channels_last(torch.from_numpy(image[None, None]))).numpy()[0, 0]
        return output

    return {**task.measure(denoise), "cpu_seconds": seconds}


def _costs(path: Path, configs: dict[str, TrainConfig]) -> dict[str, dict[str, Any]]:
    """Cost of each candidate, measured where `path` does not know it yet: all in turns, in one thread."""
    known: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    missing = {cost_key(name, config): config for name, config in configs.items()}
    missing = {key: config for key, config in missing.items() if key not in known}
    if missing:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for key, config in missing.items():
            network = build(config.preset)
            known[key] = {
                "kflop_per_pixel": kflop_per_pixel(network),
                "parameters": sum(each.numel() for each in network.parameters()),
                "halo": receptive_field(network),
            }
        for name, low in (("cpu_seconds_per_step", multiplies_bfloat16()), ("cpu_seconds_per_fp32_step", False)):
            for key, seconds in _in_turns({key: _step(config, low) for key, config in missing.items()}).items():
                known[key][name] = seconds
        torch.set_num_threads(threads)
        path.write_text(json.dumps(known, indent=1))
    return known


def _step(config: TrainConfig, low: bool) -> Callable[[], None]:
    """One step of training on noise: forward, backward and the optimiser."""
    network = build(config.preset)
    optimiser = make_optimiser(network, config)
    noisy, target = torch.randn(2, config.batch_size, 1, config.window, config.window)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            denoised = network(channels_last(noisy))
        loss = torch.nn.functional.mse_loss(denoised.float(), target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def _in_turns(functions: dict[str, Callable[[], None]], repeats: int = 7) -> dict[str, float]:
    """Median CPU seconds of each, after one call that does not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            began = time.process_time()
            function()
            if turn:
                times[name].append(time.process_time() - began)
    return {name: statistics.median(each) for name, each in times.items()}


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over the seeds, a row for each network, data, way of comparing and training."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(tuple(run[part] for part in _PARTS), []).append(run)
    rows = []
    for group, members in groups.items():
        row = dict(zip(_PARTS, group, strict=True)) | {"seeds": len(members)}
        for figure in ("error", "rsf"):
            if figure in members[0]:
                values = [run[figure] for run in members]
                row |= {figure: statistics.fmean(values), f"{figure}_std": float(np.std(values))}
        rows.append(row)
    return rows


_PARTS = ("network", "training", "cost", "data", "equal", "steps")


if __name__ == "__main__":
    main()
