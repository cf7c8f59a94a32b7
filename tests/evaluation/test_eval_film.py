"""Laws of films: small, few, in order."""

import numpy as np
import pytest

from canvas_robot.evaluation.eval_film import Camera, Film, load_film, save_film


def filmed(pictures, **changes) -> Film:
    camera = Camera(5.0, **changes)
    for picture in pictures:
        camera.take(picture)
    return camera.film()


def grey(level, size=(48, 64)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


@pytest.mark.parametrize("steps, stride", [(8, 1), (9, 2), (17, 4), (100, 16)])
def test_however_long_it_is_few_pictures_are_kept(steps, stride):
    film = filmed([grey(level) for level in range(steps)], most=8)
    assert film.stride == stride and 4 <= len(film.pictures) <= 8
    for step in range(steps):
        shown = film.at(step).mean()
        assert shown == pytest.approx(min(step // stride, len(film.pictures) - 1) * stride, abs=1)


def test_beyond_the_end_the_last_picture_stands():
    film = filmed([grey(10), grey(90)])
    np.testing.assert_array_equal(film.at(50), film.at(1))


def test_pictures_keep_their_shape_and_colours():
    red = np.zeros((480, 640, 3), np.uint8)
    red[..., 0] = 250
    small = filmed([red], width=64).at(0)
    assert small.shape == (48, 64, 3)
    np.testing.assert_allclose(small[10, 10], (250, 0, 0), atol=6)


def test_a_film_reads_back_as_it_was_saved(tmp_path):
    film = filmed([grey(10), grey(90)])
    save_film(film, tmp_path / "films" / "one.film")
    assert load_film(tmp_path / "films" / "one.film") == film
