"""A zip that depends on nothing but the names and contents in it."""

import stat
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

WHEN = (1980, 1, 1, 0, 0, 0)
"""Of every file; the oldest that a zip can tell. A commit that changes no file changes no byte."""
LEVEL = 6


def write(path: Path, files: Mapping[str, bytes], programs: Collection[str] = ()) -> None:
    """Write ``files`` (name -> content) as ``path``, all at once: nobody sees half of it.

    The names stand in order; everybody may read the files, and run those in ``programs``. The bytes
    are the same wherever zlib packs the same.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            for name in sorted(files):
                one = zipfile.ZipInfo(name, WHEN)
                one.create_system = 3  # Unix, wherever it is written: it has permissions
                mode = 0o755 if name in programs else 0o644
                one.external_attr = (stat.S_IFREG | mode) << 16
                archive.writestr(one, files[name], zipfile.ZIP_DEFLATED, LEVEL)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
