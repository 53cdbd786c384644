"""Floating-point rate of the network on the CPU, relative to that of a large ONNX Runtime matrix product.

    python -m benchmarks.network [--presets fast,paper,small] [--sizes 768,1592] [--repeats 3] [--out report.json]

A 4096×4096 micrograph at 0.66 Å/px becomes 1592×1592 pixels at max_resolution 3.4 Å. The matrix product and each
engine take turns. Operations are counted from the graph, 2 × multiply-adds of all convolutions: "real" without the
zero weights added by padding to multiples of 8, "padded" with them; halos are not counted. Rates are per second of wall
time and per CPU-second; the latter also hold on a busy machine. Weights are random, and so are the patches that int8
is quantised from; its operations are counted like those of fp32.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, shape_inference

from benchmarks.common import Timing, describe, interleave, warn_if_busy, write_json

SIDE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="fast,paper,small")
    parser.add_argument("--sizes", default="768,1592", help="sides of the network's input, multiples of 8")
    parser.add_argument("--threads", type=int, help="default: all cores available to this process")
    parser.add_argument("--matrix", type=int, default=2048, help="side of the matrices")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--engines",
        default="segments,whole",
        help="segments: in cache-sized tiles; whole: the whole graph; openvino: bf16 with AMX, else fp32; int8: ONNX "
        "Runtime in int8; openvino-int8",
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = describe() | {"matrix": options.matrix, "threads": options.threads, "rows": []}
    print(report["hardware"], report["versions"], sep="\n")
    warn_if_busy()
    for preset in options.presets.split(","):
        for size in map(int, options.sizes.split(",")):
            report["rows"] += measure(preset, size, options)
    if options.out:
        write_json(options.out, report)


def measure(preset: str, size: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one preset at one size with all engines; prints a line for each."""
    from n2n_deploy.device.processor import multiplies_bfloat16
    from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
    from n2n_deploy.engines.onnxruntime.run_segments import SegmentedSession
    from n2n_deploy.engines.openvino.run import OpenVinoSession
    from n2n_deploy.export.onnx_graph import to_onnx
    from n2n_deploy.export.quantise import with_ranges
    from n2n_deploy.export.segments import split
    from n2n_deploy.train.model import build

    network = build(preset).eval()
    model = to_onnx(network)
    real = multiply_adds(model, {name: tuple(value.shape) for name, value in network.named_parameters()})
    padded = multiply_adds(model)
    image = np.random.default_rng(0).standard_normal((1, 1, size, size)).astype(np.float32)
    patches = np.random.default_rng(1).standard_normal((8, 192, 192)).astype(np.float32)
    makers: dict[str, Callable[[], Any]] = {
        "segments": lambda: SegmentedSession([part.SerializeToString() for part in split(model)], options.threads),
        "whole": lambda: OnnxRuntimeSession(model.SerializeToString(), options.threads),
        "openvino": lambda: OpenVinoSession(
            model.SerializeToString(), options.threads, "bf16" if multiplies_bfloat16() else "fp32"
        ),
        "int8": lambda: OnnxRuntimeSession(with_ranges(model, patches).SerializeToString(), options.threads),
        "openvino-int8": lambda: OpenVinoSession(
            with_ranges(model, patches).SerializeToString(), options.threads, "int8"
        ),
    }
    sessions = {name: makers[name]() for name in options.engines.split(",")}
    functions: dict[str, Callable[[], Any]] = {"matrix": matrix_product(options.matrix, options.threads)}
    functions |= {name: lambda session=session: session.run(image) for name, session in sessions.items()}
    timings = interleave(functions, options.repeats)
    product = 2 * options.matrix**3
    rows = []
    for name in sessions:
        row = {
            "preset": preset,
            "size": size,
            "engine": name,
            "multiply_adds_per_pixel": {"real": real, "padded": padded},
            "timing": timings[name].summary(),
            "matrix_timing": timings["matrix"].summary(),
            "clock": rates(timings[name], timings["matrix"], "wall", 2 * real * size**2, product),
            "cpu": rates(timings[name], timings["matrix"], "cpu", 2 * real * size**2, product),
        }
        rows.append(row)
        clock, cpu = row["clock"], row["cpu"]
        print(
            f"{preset} {size}×{size} {name}: {row['timing']['wall_p50']:.2f} s, {row['timing']['best_cpu']:.1f} CPU-s; "
            f"{clock['network'] / 1e9:.0f} of {clock['matrix'] / 1e9:.0f} GFLOP/s of wall time ({clock['ratio']:.0%}), "
            f"{cpu['network'] / 1e9:.0f} of {cpu['matrix'] / 1e9:.0f} per CPU-second ({cpu['ratio']:.0%}; "
            f"{cpu['ratio'] * padded / real:.0%} with padding); {real:.0f} multiply-adds a pixel, {padded:.0f} padded",
            flush=True,
        )
    for session in sessions.values():
        session.close()
    return rows


def rates(network: Timing, matrix: Timing, kind: str, operations: float, product: float) -> dict[str, float]:
    """Operations per second of the network and of the matrix product, best run of each, and their ratio."""
    found = {
        "network": operations / min(getattr(network, kind)),
        "matrix": product / min(getattr(matrix, kind)),
    }
    return found | {"ratio": found["network"] / found["matrix"]}


def matrix_product(side: int, threads: int | None) -> Callable[[], Any]:
    """A function that multiplies two square float32 matrices with ONNX Runtime."""
    import onnxruntime

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [side, side]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    matrix = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    return lambda: session.run(None, {"a": matrix, "b": matrix})


def multiply_adds(model: ModelProto, kernels: dict[str, tuple[int, ...]] | None = None) -> float:
    """Multiply-adds of all convolutions per pixel of the input.

    Args:
        model: as `to_onnx` makes it.
        kernels: shapes to count instead of the graph's own, by name, such as those of the unpadded network.
    """
    concrete = ModelProto()
    concrete.CopyFrom(model)
    for dimension, length in zip(concrete.graph.input[0].type.tensor_type.shape.dim, (1, 1, SIDE, SIDE), strict=True):
        dimension.dim_value = length
    inferred = shape_inference.infer_shapes(concrete, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    own = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return sum(
        math.prod((kernels or own)[node.input[1]]) * math.prod(shapes[node.output[0]][2:]) / SIDE**2
        for node in model.graph.node
        if node.op_type == "Conv"
    )


if __name__ == "__main__":
    main()
