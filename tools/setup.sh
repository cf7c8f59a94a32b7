#!/usr/bin/env bash
# Makes .venv with the pinned dependencies and this checkout, and .venv/env.sh for ROS 2: `make setup`.
# PYTHON picks the interpreter; EXTRAS the extras of setup.py (EXTRAS=test where apt's ROS 2 is used).
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
    local name
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "setup: no Python 3.11, 3.12 or 3.13 among: ${PYTHON:-python3.11 python3.12 python3.13 python3}." \
        "Install one, or name one: make setup PYTHON=/path/to/python3" >&2
    return 1
}

# What pip cannot bring, as Debian package names: OpenCV and MuJoCo's offscreen rendering need
# these libraries, and Debian ships Python without the parts that make an environment.
missing_packages() {
    "$python" - <<'PY'
import ctypes, importlib.util

libraries = {"libEGL.so.1": "libegl1", "libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}
for library, package in libraries.items():
    try:
        ctypes.CDLL(library)
    except OSError:
        print(package)
if importlib.util.find_spec("ensurepip") is None:
    print("python3-venv")
PY
}

python=$(find_python)
packages=$(missing_packages | xargs)
if [ -n "$packages" ]; then
    install="apt-get install -y --no-install-recommends $packages"
    if [ "$(id -u)" = 0 ]; then
        root=""
    elif sudo -n true 2>/dev/null; then
        root="sudo -n"
    else
        root=false # it cannot be done here
    fi
    if ! { $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive $install; }; then
        echo "setup: system packages are missing; run as root: $install" >&2
    fi
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear .venv
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

echo "setup: PyTorch (the first time, minutes of downloads)"
pip install --quiet --constraint constraints.txt setuptools torch
echo "setup: canvas_robot with ${EXTRAS:=ros-wheels,rlds,train,semantic,envs,bench,test}"
pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[$EXTRAS]"

cat >.venv/env.sh <<SH
# Source this to use canvas_robot and ROS 2 from this environment: . .venv/env.sh
export PATH="$PWD/.venv/bin:\$PATH"
export AMENT_PREFIX_PATH="$PWD/.venv\${AMENT_PREFIX_PATH:+:\$AMENT_PREFIX_PATH}"
# Without this, shared memory for messages is too small for camera pictures, and many are lost.
export FASTDDS_DEFAULT_PROFILES_FILE="\${FASTDDS_DEFAULT_PROFILES_FILE:-$PWD/config/ros/fastdds.xml}"
SH
echo "setup: done. To use it in a shell: . .venv/env.sh"
