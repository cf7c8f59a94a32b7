"""Laws of pictures in messages: all encodings read alike, and what cannot be read says why."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from canvas_robot.ros.images import (
    MAX_PIXELS,
    image_from_compressed_msg,
    image_from_msg,
    image_to_msg,
)
from canvas_robot.ros.messages import MessageError
from canvas_robot.signals import BindingError
from canvas_robot.signals.binding import DepthRange


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_images_round_trip():
    msg = image_to_msg(picture(), 5, "camera")
    assert np.array_equal(image_from_msg(msg), picture())
    assert (msg.height, msg.width, msg.step, msg.encoding) == (6, 8, 24, "rgb8")


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_every_colour_encoding_reads_as_rgb_with_padded_rows(encoding):
    code = {
        "bgr8": cv2.COLOR_RGB2BGR,
        "rgba8": cv2.COLOR_RGB2RGBA,
        "bgra8": cv2.COLOR_RGB2BGRA,
    }.get(encoding)
    pixels = picture() if code is None else cv2.cvtColor(picture(), code)
    row = pixels.shape[1] * pixels.shape[2]
    padded = np.zeros((6, row + 7), np.uint8)
    padded[:, :row] = pixels.reshape(6, row)
    msg = Image(height=6, width=8, encoding=encoding, step=row + 7, data=padded.tobytes())
    assert np.array_equal(image_from_msg(msg), picture())


def test_grey_images_read_as_rgb():
    msg = Image(height=2, width=3, encoding="mono8", step=3, data=bytes(range(6)))
    assert image_from_msg(msg)[1, 2].tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"encoding": "yuv422"}, "expected encoding rgb8"),
        ({"step": 5}, "expected 6 rows of at least 24 bytes"),
        ({"height": 7}, "expected 7 rows"),
        ({"height": 2**31, "width": 2**31}, "expected from 1 to 8,294,400 pixels"),
        ({"height": 0}, "expected from 1 to 8,294,400 pixels, got 8x0"),
    ],
)
def test_images_that_contradict_themselves_are_refused(change, text):
    msg = image_to_msg(picture(), 5, "camera")
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(MessageError, match=text):
        image_from_msg(msg)


def test_compressed_images_read_as_rgb():
    png = cv2.imencode(".png", cv2.cvtColor(picture(), cv2.COLOR_RGB2BGR))[1].tobytes()
    assert np.array_equal(
        image_from_compressed_msg(CompressedImage(format="png", data=png)), picture()
    )


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(extension: str) -> bytes:
    return cv2.imencode(extension, picture())[1].tobytes()


@pytest.mark.parametrize("width", [4000, 10_000, 20_000, 40_000])
def test_a_compressed_image_that_says_it_is_larger_than_4k_is_never_decoded(width, monkeypatch):
    """Whichever of the limits it passes, of ours, of Pillow or of OpenCV."""
    monkeypatch.delattr(cv2, "imdecode")
    with pytest.raises(MessageError, match=f"at most {MAX_PIXELS:,} pixels, got .*lower the cam"):
        image_from_compressed_msg(CompressedImage(format="png", data=png_of_size(width, width)))


def test_of_a_picture_larger_than_is_wanted_no_pixel_is_decoded(monkeypatch):
    monkeypatch.delattr(cv2, "imdecode")
    msg = CompressedImage(format="jpeg", data=encoded(".jpg"))
    with pytest.raises(MessageError, match="at most 10 pixels, got "):
        image_from_compressed_msg(msg, max_pixels=10)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        encoded(".bmp"),
        encoded(".webp"),
        encoded(".png")[:30],
        encoded(".jpg")[:30],
        png_of_size(1_500_000, 1),
    ],
    ids=["nothing", "text", "bmp", "webp", "cut png", "cut jpeg", "wide"],
)
def test_bytes_that_are_no_jpeg_or_png_are_refused(data):
    wanted = f"expected JPEG or PNG, got {len(data)} bytes of 'jpeg'; set the publisher's format"
    with pytest.raises(MessageError, match=wanted):
        image_from_compressed_msg(CompressedImage(format="jpeg", data=data))


@pytest.mark.parametrize(
    ("encoding", "first_row", "second_row"),
    [
        ("bayer_rggb8", "rg", "gb"),
        ("bayer_bggr8", "bg", "gr"),
        ("bayer_gbrg8", "gb", "rg"),
        ("bayer_grbg8", "gr", "bg"),
    ],
)
def test_bayer_patterns_read_as_their_colour(encoding, first_row, second_row):
    """An even colour, seen through the pattern, comes back as itself."""
    colour = {"r": 200, "g": 120, "b": 40}
    cell = np.array([[colour[c] for c in row] for row in (first_row, second_row)], np.uint8)
    raw = np.tile(cell, (8, 8))
    msg = Image(height=16, width=16, encoding=encoding, step=16, data=raw.tobytes())
    inner = image_from_msg(msg)[4:-4, 4:-4]
    assert (inner == [200, 120, 40]).all()


DEPTH = DepthRange(near=0.5, far=1.5)


@pytest.mark.parametrize("big_endian", [0, 1])
@pytest.mark.parametrize(
    ("encoding", "dtype", "values"),
    [
        ("16UC1", "u2", [0, 300, 500, 1000, 1500, 9000]),
        ("32FC1", "f4", [np.nan, 0.3, 0.5, 1.0, 1.5, np.inf]),
    ],
)
def test_depth_reads_as_grey_between_its_ends(encoding, dtype, values, big_endian):
    """Nothing measured and far is black, near is white; rows may be padded."""
    row = np.array(values, np.dtype(dtype).newbyteorder(">" if big_endian else "<")).tobytes()
    msg = Image(height=2, width=6, encoding=encoding, step=len(row) + 3, is_bigendian=big_endian)
    msg.data = (row + bytes(3)) * 2
    image = image_from_msg(msg, DEPTH)
    assert image.shape == (2, 6, 3) and image.dtype == np.uint8
    assert image[1, :, 2].tolist() == [0, 255, 255, 128, 0, 0]


def test_depth_and_colour_are_not_taken_for_each_other():
    depth = Image(height=1, width=1, encoding="16UC1", step=2, data=bytes(2))
    with pytest.raises(MessageError, match="declare `depth` at the source"):
        image_from_msg(depth)
    with pytest.raises(MessageError, match="expected depth, 16UC1 or 32FC1, got 'rgb8'"):
        image_from_msg(image_to_msg(picture(), 5, "camera"), DEPTH)


@pytest.mark.parametrize(("near", "far"), [(1.0, 1.0), (-0.1, 1.0), (0.0, np.inf), (0.2, np.nan)])
def test_a_depth_range_that_is_none_is_refused(near, far):
    with pytest.raises(BindingError, match="depth: expected 0 <= near < far"):
        DepthRange(near=near, far=far)
