"""Laws of the action head: it averages everything but channels, and refuses other shapes."""

import pytest
import torch

from canvas_robot.backbone.action_head import ActionHead


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    return ActionHead(latent_channels=6, action_dim=3)


def test_videos_tokens_and_vectors_are_averaged_over_all_but_channels(head):
    video = torch.randn(2, 4, 6, 3, 5)  # (B, T, C, H, W)
    vector = video.mean(dim=(1, 3, 4))
    tokens = video.permute(0, 1, 3, 4, 2).flatten(1, 3)  # (B, N, C)
    assert head(vector).shape == (2, 3)
    torch.testing.assert_close(head(video), head(vector))
    torch.testing.assert_close(head(tokens), head(vector))


def test_the_hidden_width_is_half_the_channels_at_least_8_or_as_given():
    widths = [
        ActionHead(latent_channels=32).net[0].out_features,
        ActionHead(latent_channels=6).net[0].out_features,
        ActionHead(latent_channels=32, hidden_dim=5).net[0].out_features,
    ]
    assert widths == [16, 8, 5]
    assert ActionHead()(torch.zeros(1, 16)).shape == (1, 7)


@pytest.mark.parametrize("name", ["latent_channels", "action_dim", "hidden_dim"])
@pytest.mark.parametrize("size", [0, -1, 2.0, True, "x"])
def test_a_size_that_is_no_int_of_at_least_1_is_refused_by_name(name, size):
    with pytest.raises(ValueError) as error:
        ActionHead(**{name: size})
    assert str(error.value) == f"{name}: expected an int >= 1, got {size!r}"


@pytest.mark.parametrize("shape", [(6,), (1, 6, 2, 2), (1, 2, 6, 2, 2, 2)])
def test_another_number_of_dimensions_is_refused(head, shape):
    with pytest.raises(ValueError) as error:
        head(torch.zeros(shape))
    assert str(error.value) == (
        f"ActionHead: expected (B, T, C, H, W), (B, N, C) or (B, C), got {shape}"
    )
