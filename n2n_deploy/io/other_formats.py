"""Names of the file formats that are found in an MRC file's place, by their first bytes, and how to convert them."""

_TIFF = "convert it, for example with IMOD's tif2mrc or relion_image_handler --i IN.tif --o OUT.mrc"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"II*\0", "a TIFF image", _TIFF),
    (b"MM\0*", "a TIFF image", _TIFF),
    (b"II+\0", "a BigTIFF image or an EER movie", f"{_TIFF}; of a movie give the motion-corrected sum"),
    (b"MM\0+", "a BigTIFF image", _TIFF),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "convert it, for example with EMAN2's e2proc2d.py IN.hdf OUT.mrc"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", "give the micrograph that the picture was made of"),
    (b"\xff\xd8\xff", "a JPEG picture", "give the micrograph that the picture was made of"),
    (b"\x1f\x8b\x08", "compressed with gzip twice", "unpack it"),
    (b"BZh", "compressed with bzip2 twice", "unpack it"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it, or compress it with gzip or bzip2"),
    (b"(\xb5/\xfd", "compressed with zstd", "unpack it, or compress it with gzip or bzip2"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x93NUMPY", "a NumPy array", "write it as MRC with mrcfile"),
    (b"SIMPLE  =", "a FITS image", "convert it to MRC"),
    (b"data_", "a STAR file", "give it as the only argument, or give MRC micrographs"),
    (b"# version ", "a STAR file", "give it as the only argument, or give MRC micrographs"),
    (b"\n# version ", "a STAR file", "give it as the only argument, or give MRC micrographs"),
    (b"<?xml", "an XML file", "give the micrograph that it describes"),
)


_BEGINNINGS = tuple(magic for magic, _, _ in _SIGNATURES)


def other_format(block: bytes) -> tuple[str, str] | None:
    """Recognise a file of another format.

    Args:
        block: its first bytes.

    Returns:
        What the file is and what to do with it; None where that is not known.
    """
    # Read as the width of an MRC image, each of these is above half a million pixels: no micrograph begins so.
    if not block.startswith(_BEGINNINGS):
        return None
    return next(((what, advice) for magic, what, advice in _SIGNATURES if block.startswith(magic)))
