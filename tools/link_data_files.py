"""Links setup.py's data files into the running Python's prefix: what ROS 2 looks for, editable.

`pip install -e` leaves data files out. One link per file, so that a later `pip install .` or
`pip uninstall` replaces links in the prefix and never reaches into the checkout.
"""

import os
import sys
from pathlib import Path

import setuptools  # noqa: F401  (provides distutils)

from distutils.core import run_setup  # isort: skip


def link_data_files(checkout: Path, prefix: Path) -> None:
    """Links every data file of `checkout`'s setup.py to its place under `prefix`."""
    os.chdir(checkout)
    for folder, files in run_setup("setup.py", stop_after="init").data_files:
        target = prefix / folder
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            link = target / Path(file).name
            link.unlink(missing_ok=True)
            link.symlink_to(checkout / file)
    for link in (prefix / "share/canvas_robot").rglob("*"):
        if link.is_symlink() and not link.exists():
            link.unlink()  # its file was renamed or deleted


if __name__ == "__main__":
    link_data_files(Path(__file__).resolve().parent.parent, Path(sys.prefix))
