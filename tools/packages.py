"""Debian packages that tests and benchmarks need: installed where we may, else named."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from environment import say


class Package(NamedTuple):
    """A Debian package, what tells that it is there (a program, or a file by its whole path), and why it is needed."""

    name: str
    program: str
    reason: str

    @property
    def there(self) -> bool:
        """Whether it is installed."""
        return shutil.which(self.program) is not None or Path(self.program).is_file()


def install_packages(packages: Sequence[Package]) -> list[Package]:
    """Install what is missing if we may; else return it, after printing the one command that would."""
    missing = [package for package in packages if not package.there]
    names = [package.name for package in missing]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing Debian packages: {' '.join(names)}")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", *names]):
            subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL)
        missing = [package for package in missing if not package.there]
    if missing:
        print(f"NOT EVERYTHING CAN RUN. This would help: sudo apt-get install {' '.join(p.name for p in missing)}")
        for package in missing:
            print(f"  {package.name}: {package.reason}")
    return missing
