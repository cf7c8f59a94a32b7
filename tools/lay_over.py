"""Lets one virtual environment see the packages of another: lay_over.py BELOW ABOVE.

What is installed in ABOVE comes first there.
"""

import sys
import sysconfig
from pathlib import Path


def packages(environment: str) -> Path:
    """The folder of an environment's packages."""
    base = str(Path(environment).resolve())
    return Path(sysconfig.get_path("purelib", vars={"base": base, "platbase": base}))


below, above = sys.argv[1:]
line = f"import site; site.addsitedir({str(packages(below))!r})\n"
(packages(above) / "below.pth").write_text(line, encoding="utf-8")
