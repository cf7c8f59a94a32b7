"""Pictures between ROS messages and arrays. Each direction stands beside its inverse. No node."""

from __future__ import annotations

import array
import io

import cv2
import numpy as np
import PIL.Image
from sensor_msgs.msg import CompressedImage, Image

from canvas_robot.ros.messages import MessageError, stamp_from_ns
from canvas_robot.signals.binding import DepthRange

# Of each encoding: channels of 8 bits, and how OpenCV makes RGB of them; None: it is RGB.
# ROS names a Bayer pattern by its first row, OpenCV by the second row's second and third pixel.
_COLOURS = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
}
_DEPTHS = {"16UC1": (np.uint16, 1e-3), "32FC1": (np.float32, 1.0)}  # metres of a unit: REP 118
MAX_PIXELS = 3840 * 2160  # of an image from outside

TRANSPORTS = ("raw", "compressed")  # Image, or CompressedImage on <topic>/compressed


def check_transport(name: str) -> None:
    """Raises ValueError for an --image-transport that is none."""
    if name not in TRANSPORTS:
        raise ValueError(f"--image-transport: expected {' or '.join(TRANSPORTS)}, got {name!r}")


def image_from_msg(msg: Image, depth: DepthRange | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image; rows may be padded. With `depth`, grey of a depth image.

    Raises MessageError for an encoding that is not read, or a size that does not agree with the
    data.
    """
    if depth is not None:
        return _grey_of_depth(msg, depth)
    if msg.encoding not in _COLOURS:
        hint = "; declare `depth` at the source to read it" if msg.encoding in _DEPTHS else ""
        raise MessageError(
            f"Image: expected encoding {', '.join(_COLOURS)}, got {msg.encoding!r}{hint}"
        )
    channels, to_rgb = _COLOURS[msg.encoding]
    pixels = _rows(msg, channels).reshape(msg.height, msg.width, channels)
    return pixels if to_rgb is None else cv2.cvtColor(pixels, to_rgb)


def _grey_of_depth(msg: Image, depth: DepthRange) -> np.ndarray:
    """White at `near` and closer, black at `far` and beyond, and where nothing was measured."""
    if msg.encoding not in _DEPTHS:
        raise MessageError(f"Image: expected depth, {' or '.join(_DEPTHS)}, got {msg.encoding!r}")
    dtype, metres = _DEPTHS[msg.encoding]
    dtype = np.dtype(dtype).newbyteorder(">" if msg.is_bigendian else "<")
    rows = np.ascontiguousarray(_rows(msg, dtype.itemsize))
    distance = rows.view(dtype).astype(np.float32) * metres
    measured = np.isfinite(distance) & (distance > 0)
    share = (depth.far - np.where(measured, distance, depth.far)) / (depth.far - depth.near)
    grey = np.round(255 * np.clip(share, 0.0, 1.0)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _rows(msg: Image, pixel_bytes: int) -> np.ndarray:
    """(H, W * pixel_bytes) uint8, the padding of rows left out."""
    row = msg.width * pixel_bytes
    if not 0 < msg.width * msg.height <= MAX_PIXELS:
        raise MessageError(
            f"Image: expected from 1 to {MAX_PIXELS:,} pixels, got {msg.width}x{msg.height}"
        )
    if msg.step < row or len(msg.data) < msg.step * msg.height:
        raise MessageError(
            f"Image: expected {msg.height} rows of at least {row} bytes, got step {msg.step} and "
            f"{len(msg.data)} bytes in all"
        )
    rows = np.frombuffer(msg.data, np.uint8, msg.step * msg.height).reshape(msg.height, msg.step)
    return rows[:, :row]


def image_to_msg(image: np.ndarray, stamp: int, frame_id: str) -> Image:
    """An rgb8 Image of (H, W, 3) uint8; the inverse of `image_from_msg`."""
    height, width, _ = image.shape
    msg = Image(height=height, width=width, encoding="rgb8", is_bigendian=0, step=width * 3)
    msg.header.stamp = stamp_from_ns(stamp)
    msg.header.frame_id = frame_id
    data = array.array("B")
    data.frombytes(
        memoryview(np.ascontiguousarray(image)).cast("B")
    )  # an ndarray here costs 42 ms at VGA
    msg.data = data
    return msg


def image_from_compressed_msg(msg: CompressedImage, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a JPEG or PNG.

    Raises MessageError for bytes that are neither or are broken, and, before anything is decoded,
    for more than max_pixels: a picture of 4K takes 0.1 s.
    """
    _check_header(msg, max_pixels)
    try:
        image = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise MessageError(f"{_not_a_picture(msg)}: {error}") from error
    if image is None:
        raise MessageError(_not_a_picture(msg))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _check_header(msg: CompressedImage, max_pixels: int) -> None:
    """Reads no pixels: few bytes can stand for more than the memory holds."""
    try:
        with PIL.Image.open(io.BytesIO(msg.data), formats=("JPEG", "PNG")) as header:
            width, height = header.size
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise MessageError(_too_large(str(error), max_pixels)) from error
    except (OSError, ValueError) as error:
        raise MessageError(_not_a_picture(msg)) from error
    if width * height > max_pixels:
        raise MessageError(_too_large(f"{width}x{height}", max_pixels))


def _too_large(got: str, max_pixels: int) -> str:
    return (
        f"CompressedImage: expected at most {max_pixels:,} pixels, got {got}; lower the camera's "
        f"resolution"
    )


def _not_a_picture(msg: CompressedImage) -> str:
    return (
        f"CompressedImage: expected JPEG or PNG, got {len(msg.data)} bytes of {msg.format!r}; set "
        f"the publisher's format to jpeg or png"
    )
