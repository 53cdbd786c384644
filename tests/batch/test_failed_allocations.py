"""A failed allocation is an exception and not a crash: each allocation is made to fail, one per forked process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MALLOC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

static void *(*next_malloc)(size_t);
static size_t smallest;
static long count, failing;

void arm(size_t size, long which) { smallest = size; count = 0; failing = which; }
long counted(void) { return count; }

void *malloc(size_t size) {
    if (!next_malloc) next_malloc = dlsym(RTLD_NEXT, "malloc");
    if (smallest && size >= smallest && ++count == failing) { errno = ENOMEM; return NULL; }
    return next_malloc(size);
}
"""

SCRIPT = """
import ctypes, os
import numpy as np
from n2n_deploy import Recipe
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.imaging.restore import restore
from n2n_deploy.io.mrc_output import statistics

libc = ctypes.CDLL(None)
libc.arm.argtypes = ctypes.c_size_t, ctypes.c_long
libc.counted.restype = ctypes.c_long
image = np.random.default_rng(0).normal(10.0, 2.0, (600, 600)).astype(np.float32)


def run():
    prepared = preprocess(image, Optics(pixel_size=4.0), None, Recipe(max_resolution=16.0, phase_flip=False))
    statistics(restore(prepared.image, prepared))


run()  # filters are computed once
libc.arm(32768, 0)
run()
allocations = libc.counted()
libc.arm(0, 0)
outcomes = []
for which in range(1, allocations + 1):
    child = os.fork()
    if child == 0:
        libc.arm(32768, which)
        try:
            run()
            os._exit(0)
        except MemoryError:
            os._exit(1)
        except BaseException:
            os._exit(2)
    outcomes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(*outcomes)
"""


def test_failed_allocation_raises_memory_error(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler (gcc or clang)")
    (tmp_path / "malloc.c").write_text(MALLOC)
    build = [compiler, "-O2", "-shared", "-fPIC", "malloc.c", "-o", "malloc.so", "-ldl"]
    subprocess.run(build, cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "LD_PRELOAD": str(tmp_path / "malloc.so"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [int(word) for word in done.stdout.split()]
    # 0 where somebody knew a way out, such as pocketfft without a plan cache; a crash is the negative of its signal.
    assert outcomes.count(1) >= 5
    assert set(outcomes) <= {0, 1}
