"""CuPy, imported where a GPU is used and nowhere else."""

from types import ModuleType

from n2n_deploy.core.errors import HostError


def import_cupy() -> ModuleType:
    """Import CuPy.

    Raises:
        HostError: it is not installed, or finds no usable GPU.
    """
    try:
        import cupy
    except ImportError as error:
        raise HostError(f"CuPy cannot be imported ({error}); pip install 'n2n-deploy[gpu]'") from error
    if not cupy.cuda.is_available():
        raise HostError("CuPy finds no usable GPU; see n2n-deploy doctor")
    return cupy  # type: ignore[no-any-return]
