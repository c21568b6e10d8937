"""Copies are found, fresh pictures are not accused more often than the calibration says."""

import numpy as np
import pytest
import torch
from PIL import Image

from mindseye.evaluation.memorisation import memorisation, nearest, thumbnails


def test_nearest_equals_the_plain_search_across_chunks():
    rng = np.random.default_rng(0)
    queries, references = (torch.from_numpy(rng.normal(size=(n, 5))) for n in (7, 50))
    got = nearest(queries, references, chunk=8)
    plain = np.linalg.norm(queries.numpy()[:, None] - references.numpy()[None], axis=-1)
    assert np.allclose(got.distances.numpy(), plain.min(1))
    assert (got.indices.numpy() == plain.argmin(1)).all()


def test_a_copy_is_at_distance_zero_exactly():
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(300, 512))).float()
    assert nearest(x[17:18], x).distances.item() == 0


def test_a_fresh_model_is_suspect_as_often_as_calibrated_and_a_copying_one_as_often_as_it_copies():
    rng = np.random.default_rng(2)
    training, unseen, fresh = (torch.from_numpy(rng.normal(size=(n, 8))) for n in (2000, 3000, 3000))
    honest = memorisation("features", fresh, training, unseen)
    assert honest.suspect.double().mean().item() == pytest.approx(0.01, abs=0.006)
    made = fresh.clone()
    made[:900] = training[:900] + 0.01
    copying = memorisation("features", made, training, unseen)
    assert copying.suspect[:900].all()
    assert copying.suspect.double().mean().item() == pytest.approx(0.3 + 0.7 * 0.01, abs=0.006)
    assert copying.threshold == honest.threshold
    pairs = copying.pairs(5)
    assert [j for _, j, _ in pairs] == [i for i, _, _ in pairs]  # copy i is of training picture i
    assert all(0 <= ratio < 1 for *_, ratio in pairs)


def test_thumbnails_measure_the_root_mean_square_difference():
    black, grey = Image.new("RGB", (128, 128)), Image.new("RGB", (64, 64), (51, 51, 51))
    small = thumbnails([black, grey, black])
    assert small.shape == (3, 3 * 16 * 16)
    assert (small[0] - small[1]).norm().item() == pytest.approx(0.2, abs=1e-6)
    assert torch.equal(small[0], small[2])
