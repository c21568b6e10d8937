"""How often a training run sees which pictures."""

import numpy as np

from mindseye.training.pictures import PLAIN_TIMES, RELATED_TIMES, stream


def test_plain_shapes_are_seen_more_often_and_their_relations_most() -> None:
    captions = ["an owl, flat", "a red star", "a red star above a blue ring", "an owl above a fox"]
    where = np.array([2, 0, 1, 1, 3])  # the caption of each picture
    assert 1 < PLAIN_TIMES < RELATED_TIMES
    times = np.bincount(stream(captions, where), minlength=5)
    assert times.tolist() == [RELATED_TIMES, 1, PLAIN_TIMES, PLAIN_TIMES, 1]
    assert np.bincount(stream(captions, where, plain=1, related=2), minlength=5).tolist() == [2, 1, 1, 1, 1]
