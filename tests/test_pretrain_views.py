"""The training views against torchvision's own functions, step by step."""

import math
from dataclasses import replace

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from mgmlib.pretrain import views
from mgmlib.pretrain.methods import METHODS, method_class
from mgmlib.pretrain.views import View, render

PLAIN = View(scale=(1, 1), flip=0, jitter_p=0, gray=0)
close = torch.testing.assert_close


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=8, side=32, seed=0):
    return torch.randint(256, (n, 3, side, side), generator=rng(seed), dtype=torch.uint8)


def pale(n=4, side=32):
    """Colours in the middle of the range, that no step drives out of it."""
    return 0.4 + 0.2 * torch.rand(n, 3, side, side, generator=rng())


@pytest.fixture
def draw(monkeypatch):
    """Every uniform draw falls at the same fraction of its range."""

    def fix(fraction):
        def drawn(_, low, high, *shape):
            return torch.full(shape, low + (high - low) * fraction)

        monkeypatch.setattr(views, "_uniform", drawn)

    return fix


# Crop and flip


@pytest.mark.parametrize(
    "top, left, height, width", [(0, 0, 32, 32), (3, 7, 20, 12), (9, 0, 9, 23), (20, 25, 4, 5)]
)
@pytest.mark.parametrize("side", [32, 16, 7])
def test_crop_is_torchvisions(top, left, height, width, side):
    x = images(2).float() / 255
    box = [(2 * left + width) / 32 - 1, (2 * top + height) / 32 - 1, width / 32, height / 32]
    ours = views._crop(x, torch.tensor(box)[:, None].repeat(1, 2), side)
    theirs = F.resized_crop(x, top, left, height, width, [side, side], antialias=False)
    # Within half a pixel of the box's border torchvision repeats the last pixel, ours reads the next one.
    inside = [
        [a for a in range(side) if 0.5 <= (a + 0.5) * extent / side <= extent - 0.5]
        for extent in (height, width)
    ]
    if (height, width) == (32, 32):
        inside = [list(range(side))] * 2
    assert all(inside)
    rows, columns = (torch.tensor(i) for i in inside)
    close(ours[:, :, rows][..., columns], theirs[:, :, rows][..., columns], rtol=0, atol=2e-5)


def test_flip_mirrors_the_crop():
    x = images(3).float() / 255
    boxes = views._boxes(x, (0.3, 0.9), 0.0, rng(1))
    mirrored = boxes * torch.tensor([1.0, 1, -1, 1])[:, None]
    close(views._crop(x, mirrored, 16), F.hflip(views._crop(x, boxes, 16)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [(0.08, 1), (0.2, 1), (0.1, 0.4), (1, 1)])
@pytest.mark.parametrize("shape", [(32, 32), (24, 48)])
def test_boxes_lie_in_the_image_and_have_the_area_asked_for(scale, shape):
    n = 4000
    x, y, w, h = views._boxes(torch.empty(n, 3, *shape), scale, 0.5, rng())
    flipped, w = w < 0, w.abs()
    assert 0.45 < flipped.float().mean() < 0.55
    for centre, half in ((x, w), (y, h)):
        assert (centre.abs() + half <= 1 + 1e-6).all() and (half > 0).all()
    free = (w < 1) & (h < 1)  # a box that would stick out is cut
    area, aspect = (w * h)[free], (w / h * shape[1] / shape[0])[free]
    if len(area):
        assert area.min() >= scale[0] - 1e-5 and area.max() <= scale[1] + 1e-5
        assert aspect.min() >= 3 / 4 - 1e-5 and aspect.max() <= 4 / 3 + 1e-5
        assert aspect.min() < 0.8 and aspect.max() > 1.25
    if scale[1] < 1:  # uniform in area
        assert (w * h).mean().item() == pytest.approx(sum(scale) / 2, rel=0.03)


@pytest.mark.parametrize("zoom", [1, 0.5])
def test_whole_image_is_left_as_it_is(zoom):
    x, view = images(), replace(PLAIN, scale=(1, 1), zoom=zoom)
    boxes = torch.tensor([0.0, 0, 1, 1])[:, None].repeat(1, len(x))
    close(views._crop(x.float() / 255, boxes, 32), x.float() / 255, rtol=0, atol=1e-5)
    assert render(x, view, 32, rng()).shape == (8, 3, 32 * zoom, 32 * zoom)


# Colour


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_brightness_contrast_saturation_are_torchvisions(draw, fraction):
    draw(fraction)
    x, strengths = pale(), (0.3, 0.4, 0.5, 0)
    view = replace(PLAIN, jitter=strengths, jitter_p=1)
    ours, theirs = views._recolor(x, view, rng()), x
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    for adjust, strength in zip(steps, strengths, strict=False):
        theirs = adjust(theirs, 1 + strength * (2 * fraction - 1))
    close(ours, theirs, rtol=0, atol=3e-4)  # torchvision's luma has four decimals


@pytest.mark.parametrize("which", range(3))
def test_each_jitter_alone_is_torchvisions(draw, which):
    draw(0.95)
    x, strengths = pale(), [0.0] * 4
    strengths[which] = 0.4
    ours = views._recolor(x, replace(PLAIN, jitter=tuple(strengths), jitter_p=1), rng())
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)[which]
    close(ours, adjust(x, 1 + 0.4 * 0.9), rtol=0, atol=3e-4)


def test_gray_is_torchvisions():
    x = images().float() / 255
    close(views._recolor(x, replace(PLAIN, gray=1), rng()), F.rgb_to_grayscale(x, 3), rtol=0, atol=3e-4)


def test_hue_turns_colours_about_grey():
    """Luma and grey stay, so does the distance from grey in YIQ; turns add up; a full turn is none."""
    angle = torch.tensor([0.3, -1.2, 2 * math.pi])
    turn, yiq = views._hue(angle), torch.tensor(views._YIQ)
    grey, luma = torch.ones(3, 1), torch.tensor(views.LUMA)
    close(turn @ grey, grey.expand(3, 3, 1), rtol=0, atol=2e-3)  # the published YIQ has four decimals
    close(luma @ turn, luma.expand(3, 3), rtol=0, atol=1e-6)
    colour = torch.rand(3, 20, generator=rng())
    chroma = lambda rgb: (yiq @ rgb)[..., 1:, :].norm(dim=-2)  # noqa: E731
    close(chroma(turn @ colour), chroma(colour).expand(3, 20), rtol=0, atol=1e-5)
    close(views._hue(angle) @ views._hue(-angle), torch.eye(3).expand(3, 3, 3), rtol=0, atol=1e-5)
    close(turn[2], torch.eye(3), rtol=0, atol=1e-5)
    red = torch.tensor([[1.0], [0], [0]])
    assert (views._hue(torch.tensor([math.pi]))[0] @ red - red).abs().max() > 0.5


def test_pca_noise_lies_along_the_principal_colours():
    x = torch.full((20000, 3, 1, 1), 0.5)
    moved = views._recolor(x, replace(PLAIN, pca=0.1), rng()).flatten(1) - 0.5
    covariance = torch.tensor(views._PCA) @ torch.tensor(views._PCA).T * 0.01
    close(moved.T @ moved / len(moved), covariance, rtol=0.05, atol=1e-6)
    spread = torch.linalg.svdvals(torch.tensor(views._PCA))
    close(spread, torch.tensor([0.2175, 0.0188, 0.0045]), rtol=0, atol=2e-4)  # Krizhevsky et al.: eigenvalues


@pytest.mark.parametrize("p", [0, 0.3, 1])
def test_probabilities_are_those_asked_for(draw, p):
    draw(1.0)  # each step at its strongest
    x = torch.rand(3000, 3, 4, 4, generator=rng())
    n = len(x)
    grey = views._recolor(x, replace(PLAIN, gray=p), rng(1))
    jittered = views._recolor(x, replace(PLAIN, jitter=(0.4, 0, 0, 0), jitter_p=p), rng(1))
    blurred, solarized = views._blur(x, p, rng(1)), views._solarize(x, p, rng(1))
    for changed in (grey, jittered, blurred, solarized):
        share = (changed - x).abs().flatten(1).amax(1).gt(1e-6).float().mean().item()
        assert share == pytest.approx(p, abs=3.5 * math.sqrt(p * (1 - p) / n) + 0.002)


# Blur and solarisation


@pytest.mark.parametrize("side, kernel", [(16, 3), (32, 3), (64, 7), (96, 9)])
@pytest.mark.parametrize("fraction", [0.2, 1.0])
def test_blur_is_torchvisions_away_from_the_border(draw, side, kernel, fraction):
    draw(fraction)
    x, sigma = images(2, side).float() / 255, 0.1 + 1.9 * fraction
    ours, theirs = views._blur(x, 1.0, rng()), F.gaussian_blur(x, [kernel, kernel], [sigma, sigma])
    edge = kernel // 2
    inner = (..., slice(edge, -edge), slice(edge, -edge))
    close(ours[inner], theirs[inner], rtol=0, atol=2e-6)
    flat = torch.full((1, 3, side, side), 0.3)
    close(views._blur(flat, 1.0, rng()), flat)


def test_solarize_is_torchvisions():
    x = images().float() / 255
    assert torch.equal(views._solarize(x, 1.0, rng()), F.solarize(x, 0.5))


def test_randaugment_is_torchvisions_and_leaves_the_global_generator():
    x = images(20)
    before = torch.get_rng_state()
    ours = views._randaugment(x, rng(3), chunk=16)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(int(torch.randint(2**31, (), generator=rng(3))))
    transform = v2.RandAugment()
    assert torch.equal(ours, torch.cat([transform(x[:16]), transform(x[16:])]))
    torch.set_rng_state(before)


# Jigsaw


def test_jigsaw_shows_each_cell_once_in_random_order(monkeypatch):
    whole = torch.tensor([0.0, 0, 1, 1])[:, None]
    monkeypatch.setattr(views, "_boxes", lambda x, *_: whole.repeat(1, len(x)))
    colours = torch.rand(9, 3, generator=rng())
    grid = colours.T.reshape(1, 3, 3, 3).repeat_interleave(32, 2).repeat_interleave(32, 3)
    x = (255 * grid).round().byte().repeat(50, 1, 1, 1)
    patches = render(x, replace(PLAIN, jigsaw=True), 32, rng(1))
    assert patches.shape == (50, 9, 3, 8, 8)
    seen = patches[..., 1:-1, 1:-1].mean((3, 4))  # the outermost pixels may touch the next cell
    cell = torch.cdist(seen, colours.expand(50, 9, 3))
    assert cell.amin(2).max() < 0.02
    orders = cell.argmin(2)
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(50, 9))
    assert len(orders.unique(dim=0)) > 45


def test_jigsaw_patches_are_coloured_alone():
    x = torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)
    patches = render(x, replace(PLAIN, jigsaw=True, jitter=(0.4, 0, 0, 0), jitter_p=1), 32, rng())
    means = patches.mean((2, 3, 4))
    assert len(means.flatten().unique()) == means.numel()


# All recipes


@pytest.mark.parametrize("name", METHODS)
def test_views_of_every_method(name):
    """In [0, 1]; the same generator gives the same bits, another gives others; the pixels are left alone."""
    x = images(16)
    before = x.clone()
    for view in method_class(name).views:
        first, again, other = (render(x, view, 32, rng(seed)) for seed in (1, 1, 2))
        assert first.dtype == torch.float32 and first.min() >= 0 and first.max() <= 1
        assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(x, before)


def test_two_views_of_one_recipe_differ():
    x, draws, view = images(16), rng(), View(blur=0.5)
    assert not torch.equal(render(x, view, 32, draws), render(x, view, 32, draws))
