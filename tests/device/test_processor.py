"""What the processor supports, from the kernel's list of its flags."""

from pathlib import Path

import pytest

from n2n_deploy.device.processor import multiplies_bfloat16


def test_amx_is_found_by_the_processors_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sapphire_rapids = "fpu sse2 avx512_bf16 amx_bf16 avx512_fp16 amx_tile amx_int8"
    zen_4 = "fpu sse2 avx2 avx512_bf16 avx512_vnni"
    listing = tmp_path / "cpuinfo"
    for flags, expected in ((sapphire_rapids, True), (zen_4, False)):
        listing.write_text(f"processor\t: 0\nmodel name\t: one\nflags\t\t: {flags}\nbugs\t\t:\n\n" * 2)
        monkeypatch.setattr("n2n_deploy.device.processor._CPUINFO", listing)
        assert multiplies_bfloat16.__wrapped__() == expected
    monkeypatch.setattr("n2n_deploy.device.processor._CPUINFO", tmp_path / "none")
    assert not multiplies_bfloat16.__wrapped__()
