"""R-precision and retrieval on judges whose answers are known beforehand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from mindseye.evaluation.clip_score import (
    ClipJudge,
    clip_score,
    distractors,
    embed_pictures,
    embed_texts,
    r_precision,
    retrieval,
)
from mindseye.networks.clip import CLIP, Config, Text, ViT
from mindseye.text.tokenizer import Tokenizer


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


def test_clip_score_is_the_papers():
    pictures = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    texts = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert clip_score(pictures, texts).tolist() == pytest.approx([2.5, 0.0, 2.5 / math.sqrt(2)])
    assert clip_score(pictures, -texts).tolist() == pytest.approx([0, 0, 0])


def test_distractors_are_others_and_never_twice():
    pool = [f"caption {i}" for i in range(120)]
    captions = ["caption 7", "unheard of", "caption 119"]
    wrong = distractors(captions, pool, 99, seed=3)
    assert wrong.shape == (3, 99)
    for caption, row in zip(captions, wrong, strict=True):
        words = [pool[i] for i in row]
        assert caption not in words
        assert len(set(words)) == 99
    assert (wrong == distractors(captions, pool, 99, seed=3)).all()
    assert (wrong != distractors(captions, pool, 99, seed=4)).any()


def test_every_other_caption_is_drawn_equally_often():
    pool = list("abcdef")
    drawn = np.bincount(distractors(["c"] * 3000, pool, 2, seed=0).ravel(), minlength=6)
    assert drawn[2] == 0
    assert np.abs(np.delete(drawn, 2) / 3000 - 2 / 5).max() < 0.03


def test_too_small_or_repeating_pools_are_refused():
    with pytest.raises(ValueError, match="5 other captions"):
        distractors(["a"], list("abcdef"), 6)
    assert len(distractors(["x"], list("abcdef"), 6)[0]) == 6
    with pytest.raises(ValueError, match="repeats"):
        distractors(["a"], ["b", "b", "c"], 1)


def test_r_precision_of_a_perfect_a_blind_and_a_constant_judge():
    rng = torch.Generator().manual_seed(0)
    texts = unit(torch.randn(400, 64, generator=rng))
    wrong = distractors([str(i) for i in range(400)], [str(i) for i in range(400)], 9)
    assert r_precision(texts, texts, texts, wrong).all()
    blind = r_precision(unit(torch.randn(400, 64, generator=rng)), texts, texts, wrong)
    assert blind.double().mean().item() == pytest.approx(0.1, abs=0.05)
    same = texts[:1].expand(400, -1)
    assert not r_precision(same, same, same, wrong).any()  # ties are misses


def test_retrieval_ranks():
    texts = torch.eye(4)
    pictures = unit(torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1]]))
    assert retrieval(pictures, texts, list("abcd")).tolist() == [0, 1, 2, 3]


def test_equal_captions_do_not_stand_in_each_others_way():
    texts = torch.eye(3)[[0, 1, 0, 2]]
    pictures = unit(torch.tensor([[3.0, 2, 1], [3.0, 2, 1], [3.0, 2, 1], [3.0, 2, 1]]))
    assert retrieval(pictures, texts, ["a", "b", "a", "c"]).tolist() == [0, 1, 0, 2]


@pytest.fixture(scope="module")
def judge():
    tokenizer = Tokenizer.train(["a red circle", "a blue star", "a fox"] * 9, 530, length=12)
    torch.manual_seed(0)
    config = Config(
        text=Text(vocabulary=tokenizer.vocabulary, length=12, width=16, layers=1, heads=2),
        image=ViT(size=16, patch=8, width=16, layers=1, heads=2),
        embed=8,
    )
    return ClipJudge(CLIP(config).eval(), tokenizer)


def test_a_clip_judges_in_unit_vectors_without_gradients(judge):
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
    seen = embed_pictures(judge, pictures, batch=2)
    assert seen.shape == (3, 8)
    assert not seen.requires_grad
    assert torch.allclose(seen.norm(dim=-1), torch.ones(3))
    assert torch.allclose(seen[2], embed_pictures(judge, pictures[2:])[0], atol=1e-6)
    texts = embed_texts(judge, ["a fox", "a red circle", "a fox"], batch=1)
    assert torch.allclose(texts.norm(dim=-1), torch.ones(3))
    assert torch.equal(texts[0], texts[2])
    direct = unit(judge.clip.text(judge.tokenizer.encode(["a red circle"])[0])[1]).detach()
    assert torch.allclose(texts[1], direct[0], atol=1e-6)


def test_no_pictures_are_no_vectors_and_a_text_tower_is_no_judge(judge):
    assert len(embed_pictures(judge, [])) == 0
    blind = ClipJudge(CLIP(Config(text=judge.clip.config.text, image=None, embed=8)), judge.tokenizer)
    with pytest.raises(ValueError, match="cannot judge"):
        _ = blind.size
