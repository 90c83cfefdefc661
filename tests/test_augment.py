"""Views: the draws, the kernels against torchvision, and what a view may depend on."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

import mgmlib as mgm
from mgmlib import augment
from mgmlib.steps import Blend, Blur, ColorJitter, Crop, Flip, Grayscale, Preprocessing, Rotate

SIZE, RESIZE = 32, 36
AUGMENTING = [s for s in augment.SETTINGS if s != "none"]


def picture(seed=0, height=48, width=60):
    """A smooth picture with colour and a direction, uint8 (3, height, width)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
    return torch.from_numpy((127.5 + 110 * np.stack(waves)).astype(np.uint8))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def pictures():
    return mgm.Images.from_tensor(torch.stack([picture(i) for i in range(5)]))


# ---- evaluation preprocessing


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(48, 60), (60, 48), (20, 33), (36, 36)])
def test_unaugmented_view_is_torchvisions_resize_and_center_crop(mode, shape):
    image = picture(0, *shape)
    oracle = v2.Compose(
        [
            v2.Resize(RESIZE, InterpolationMode(mode)),
            v2.CenterCrop(SIZE),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    mine = mgm.views([image], "none", 1, SIZE, resize=RESIZE, interpolation=mode)[0]
    torch.testing.assert_close(mine, oracle(image), rtol=0, atol=1e-7)


def test_squash_ignores_the_aspect_ratio():
    image = picture(0, 40, 80)
    mine = Preprocessing(SIZE, SIZE, crop_mode="squash")(image)
    torch.testing.assert_close(mine, F.resize(image, [SIZE, SIZE]).float() / 255, rtol=0, atol=1e-7)


def test_float_images_stay_in_range_under_bicubic_overshoot():
    edge = torch.zeros(3, 40, 40)
    edge[:, :, 20:] = 1
    x = Preprocessing(SIZE, RESIZE, "bicubic")(edge)
    assert x.min() == 0 and x.max() == 1


def test_uint8_and_float_images_give_the_same_view_up_to_rounding():
    image = picture()
    a, b = (Preprocessing(SIZE, RESIZE)(x) for x in (image, image.float() / 255))
    assert (a - b).abs().max() <= 1.01 / 255


def test_memory_layout_does_not_matter():
    image = picture()
    permuted = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(Preprocessing(SIZE, RESIZE)(image), Preprocessing(SIZE, RESIZE)(permuted))


# ---- steps against torchvision, for given parameters


def test_crop_applies_the_box_that_it_is_given():
    image, box = picture(), (5, 7, 30, 21)
    oracle = F.resized_crop(image, *box, [SIZE, SIZE], antialias=True).float() / 255
    assert torch.equal(Crop().apply(image, box, Preprocessing(SIZE, RESIZE)), oracle)


def test_color_jitter_applies_its_factors_in_its_order():
    x = picture(0, SIZE, SIZE).float() / 255
    one = F.adjust_hue(F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(x, 1.3), 0.6), 1.5), -0.1)
    other = F.adjust_brightness(F.adjust_hue(F.adjust_contrast(F.adjust_saturation(x, 1.5), 0.6), -0.1), 1.3)
    factors = (1.3, 0.6, 1.5, -0.1)
    assert torch.equal(ColorJitter().apply(x, (0, 1, 2, 3), factors), one)
    assert torch.equal(ColorJitter().apply(x, (2, 1, 3, 0), factors), other)
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("side, kernel", [(32, 3), (64, 7), (224, 23)])
def test_blur_is_torchvisions_with_a_kernel_of_a_tenth_of_the_side(side, kernel):
    x = picture(0, side, side).float() / 255
    torch.testing.assert_close(
        Blur().apply(x, 1.3), F.gaussian_blur(x, [kernel, kernel], [1.3, 1.3]), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("angle", [-45.0, -17.0, 8.0, 45.0])
def test_rotation_agrees_with_torchvision_inside_and_has_no_black_corner(angle):
    x = 0.25 + 0.5 * picture(0, 64, 64).float() / 255
    mine = Rotate().apply(x, angle)
    oracle = F.rotate(x, angle, InterpolationMode.BILINEAR)
    y, col = np.mgrid[-31.5:32, -31.5:32]
    inside = torch.from_numpy(np.hypot(y, col) < 30)
    torch.testing.assert_close(mine[:, inside], oracle[:, inside], rtol=0, atol=1e-5)
    assert mine.min() >= 0.24 and (abs(angle) < 10 or oracle.min() == 0)


def test_flip_grayscale_and_blends_are_torchvisions():
    x = picture(0, SIZE, SIZE).float() / 255
    gray = F.rgb_to_grayscale(x, num_output_channels=3)
    assert torch.equal(Flip().apply(x), F.horizontal_flip(x))
    assert torch.equal(Grayscale().apply(x), gray)
    torch.testing.assert_close(
        Blend("grayscale").apply(x, 0.4), F.adjust_saturation(x, 0.6), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(Blend("solarize").apply(x, 1.0), F.solarize(x, 0.5), rtol=0, atol=1e-6)


# ---- distributions of the draws


def test_crop_boxes_are_distributed_as_torchvisions():
    height, width, n = 300, 400, 3000
    mine = np.array([Crop().draw(g, height, width) for g in [rng(1)] for _ in range(n)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        oracle = v2.RandomResizedCrop(SIZE)
        image = torch.zeros(3, height, width)
        theirs = np.array([list(oracle.make_params([image]).values()) for _ in range(n)])
    area = mine[:, 2] * mine[:, 3] / (height * width)
    aspect = mine[:, 3] / mine[:, 2]
    assert 0.079 < area.min() < 0.09 and 0.9 < area.max() <= 1
    assert 0.74 < aspect.min() < 0.78 and 1.3 < aspect.max() < 1.35
    assert (mine[:, 0] + mine[:, 2]).max() <= height and (mine[:, 1] + mine[:, 3]).max() <= width
    for column in range(4):
        assert stats.ks_2samp(mine[:, column], theirs[:, column]).pvalue > 1e-3


@pytest.mark.parametrize("height, width", [(10, 400), (400, 10), (1, 1), (2, 3)])
def test_crop_of_an_extreme_shape_falls_back_as_torchvision_does(height, width):
    g = rng()
    for _ in range(50):
        top, left, h, w = Crop().draw(g, height, width)
        assert 0 <= top <= height - h and 0 <= left <= width - w and h > 0 and w > 0
    if (height, width) == (10, 400):
        assert Crop().draw(g, height, width)[2:] == (10, 13)  # 13 = round(10 * 4/3), as no drawn box fits


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_draws_are_uniform_over_the_documented_ranges(strength):
    g, n = rng(2), 4000
    jitter = [ColorJitter(p=0.8).draw(g, strength) for _ in range(n)]
    drawn = [p for p in jitter if p is not None]
    factors = np.array([p["factors"] for p in drawn]) - (1, 1, 1, 0)
    ranges = {f"jitter {i}": (factors[:, i], -w, w) for i, w in enumerate((0.8, 0.8, 0.8, 0.2))}
    ranges["angle"] = ([Rotate().draw(g, strength)["angle"] for _ in range(n)], -45, 45)
    ranges["sigma"] = ([Blur().draw(g, strength)["sigma"] for _ in range(n)], 0.1, 2.0)
    ranges["weight"] = ([Blend("solarize").draw(g, strength)["weight"] for _ in range(n)], 0, 1)
    for name, (values, low, high) in ranges.items():
        uniform = stats.uniform(strength * low, strength * (high - low))
        assert stats.kstest(values, uniform.cdf).pvalue > 1e-3, name
    orders = {p["order"] for p in drawn}
    assert len(orders) == math.factorial(4)
    coins = {
        "jitter": (len(drawn), 0.8),
        "blur": (sum(Blur(p=0.5).draw(g, 1.0) is not None for _ in range(n)), 0.5),
    }
    coins["flip"] = (sum(Flip().draw(g, strength) is not None for _ in range(n)), 0.5 * strength)
    coins["gray"] = (sum(Grayscale().draw(g, strength) is not None for _ in range(n)), 0.2 * strength)
    for name, (count, p) in coins.items():
        assert stats.binomtest(count, n, p).pvalue > 1e-3, name


# ---- what a view depends on


@pytest.mark.parametrize("setting", AUGMENTING)
def test_strength_zero_is_the_identity(pictures, setting):
    x = mgm.views(pictures, setting, 4, SIZE, strength=0.0, resize=RESIZE).unflatten(0, (5, 4))
    assert torch.equal(x, x[:, :1].expand_as(x))
    assert torch.equal(x[:, 0], mgm.views(pictures, "none", 1, SIZE, resize=RESIZE))


@pytest.mark.parametrize("setting", AUGMENTING)
def test_views_lie_in_the_unit_range_and_differ(pictures, setting):
    x = mgm.views(pictures, setting, 8, SIZE, resize=RESIZE).unflatten(0, (5, 8))
    assert x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
    distinct = [len(torch.unique(views.flatten(1), dim=0)) for views in x]
    assert distinct == [8] * 5 if setting != "flip" else set(distinct) <= {1, 2} and 2 in distinct
    assert torch.equal(x[:, 0], mgm.views(pictures, "none", 1, SIZE, resize=RESIZE))


@pytest.mark.parametrize("setting", AUGMENTING)
def test_effect_grows_with_strength(pictures, setting):
    plain = mgm.views(pictures, "none", 1, SIZE, resize=RESIZE)[:, None]
    effect = [
        (mgm.views(pictures, setting, 25, SIZE, strength=s, resize=RESIZE).unflatten(0, (5, 25)) - plain)
        .abs()
        .mean()
        for s in (0.0, 0.1, 0.3, 0.6, 1.0)
    ]
    assert effect[0] == 0 and all(a < b for a, b in pairwise(effect)), effect


@pytest.mark.parametrize("setting", AUGMENTING)
def test_views_do_not_depend_on_batches_order_or_neighbors(pictures, setting):
    whole = mgm.views(pictures, setting, 6, SIZE, seed=3, resize=RESIZE)
    preprocessing = Preprocessing(SIZE, RESIZE)
    for batch in (1, 4, 7):
        spans = [(a, min(30, a + batch)) for a in range(0, 30, batch)]
        parts = {
            s: augment.view_rows(pictures, *s, setting, 6, preprocessing, 3, 1.0) for s in reversed(spans)
        }
        assert torch.equal(torch.cat([parts[s] for s in spans]), whole)
    subset = mgm.views(pictures.subset([4, 1]), setting, 6, SIZE, seed=3, resize=RESIZE)
    assert torch.equal(subset, torch.cat([whole[24:30], whole[6:12]]))
    more = mgm.views(pictures, setting, 9, SIZE, seed=3, resize=RESIZE).unflatten(0, (5, 9))
    assert torch.equal(more[:, :6].flatten(0, 1), whole)


def test_a_view_alone_is_the_view_among_the_others(pictures):
    whole = mgm.views(pictures, "all", 6, SIZE, seed=3, resize=RESIZE)
    g = augment.view_generator(3, 2, 5)
    assert torch.equal(augment.view(pictures[2], "all", SIZE, rng=g, resize=RESIZE), whole[2 * 6 + 5])


def test_parameters_are_independent_between_images_views_and_seeds():
    keys = [(s, i, v) for s in range(3) for i in range(40) for v in range(1, 30)]
    draws = np.array([augment.view_generator(*key).random(2) for key in keys])
    assert len(np.unique(draws[:, 0])) == len(keys)
    assert stats.kstest(draws[:, 0], stats.uniform.cdf).pvalue > 1e-3
    table = draws[:, 0].reshape(3, 40, 29)
    for a, b in ((table[:-1], table[1:]), (table[:, :-1], table[:, 1:]), (table[..., :-1], table[..., 1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / math.sqrt(a.size)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 4 / math.sqrt(len(keys))


def test_global_generators_are_not_touched(pictures):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    mgm.views(pictures, "all", 5, SIZE)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


# ---- bad input


@pytest.mark.parametrize(
    "change, told",
    [
        ({"setting": "colour"}, "setting='colour'.*color-jitter"),
        ({"strength": 1.5}, "strength=1.5"),
        ({"strength": float("nan")}, "strength=nan"),
        ({"n_views": 0}, "n_views=0"),
        ({"setting": "none", "n_views": 3}, "n_views=3.*'none'"),
        ({"size": 64, "resize": 32}, "size=64, resize=32"),
        ({"interpolation": "nearest"}, "interpolation='nearest'"),
        ({"images": [torch.zeros(1, 8, 8)]}, r"images\[0\].*\(1, 8, 8\)"),
        ({"images": [torch.full((3, 8, 8), 255.0)]}, r"images\[0\].*255"),
        ({"images": [torch.full((3, 8, 8), float("nan"))]}, r"images\[0\].*nan"),
    ],
)
def test_bad_input_is_named(change, told):
    arguments = {"images": [picture()], "setting": "all", "n_views": 2, "size": SIZE} | change
    with pytest.raises(ValueError, match=told):
        mgm.views(arguments.pop("images"), **arguments)


def test_integer_pixels_other_than_uint8_are_an_error():
    with pytest.raises(TypeError, match=r"images\[0\].*int64"):
        mgm.views([torch.zeros(3, 8, 8, dtype=torch.int64)], "none", 1, SIZE)
