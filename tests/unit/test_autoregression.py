"""The loop that writes pictures, on models whose distribution is known."""

import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mindseye
from mindseye.autoregression import NextToken, bits, choose, guided, probabilities, sample, top_share
from mindseye.errors import WeightsError
from mindseye.nn.layers import Linear
from mindseye.nn.packed import _dtypes
from mindseye.noise import Noise
from mindseye.request import drain


class Memory:
    """What `Chain` remembers: the text's last id and what was read."""

    def __init__(self, text, read):
        self.text, self.read = text, read

    @property
    def written(self):
        return self.read.shape[1]

    def select(self, rows):
        return Memory(self.text[rows], self.read[rows])


class Chain:
    """Logits that depend on the text and on everything written: a table, and a sum."""

    length, codes = 6, 5

    def __init__(self):
        self.table = torch.randn(self.codes, self.codes, generator=torch.Generator().manual_seed(1))
        self.started, self.rows = [], []

    def start(self, text):
        self.started.append(len(text))
        return Memory(text[:, -1], text[:, :0])

    def next(self, ids, state):
        self.rows.append(len(state.text))
        if ids is not None:
            state.read = torch.cat([state.read, ids[:, None]], 1)
        return self.table[state.text % self.codes] + self.table[state.read].sum(1)


TEXT, NULL = torch.tensor([[4, 2]]), torch.tensor([[0, 0]])


def write(model, seeds, text=TEXT, null=NULL, **more):
    return drain(sample(model, text, null, Noise(seeds), **more))


def test_seed_n_writes_the_same_alone_in_a_batch_and_resumed():
    batch = write(Chain(), [7, 8, 9], guidance=1.5)
    assert batch.shape == (3, 6) and len({tuple(row) for row in batch.tolist()}) > 1
    assert torch.equal(write(Chain(), [9], guidance=1.5), batch[2:])
    assert torch.equal(write(Chain(), [7, 8, 9], guidance=1.5, prime=batch[:, :4]), batch)
    assert torch.equal(write(Chain(), [8], guidance=1.5, prime=batch[1:2, :2]), batch[1:2])
    assert torch.equal(write(Chain(), [7, 8, 9], prime=batch), batch)


def test_pictures_of_one_text_share_the_reading_of_it():
    model = Chain()
    write(model, [1, 2, 3, 4], guidance=3)
    assert model.started == [2] and model.rows == [2] + [8] * 5
    model = Chain()
    write(model, [1, 2, 3, 4], guidance=3, prime=torch.tensor([[1, 2]]))
    assert model.started == [2] and model.rows == [2] * 3 + [8] * 3


def test_a_text_a_picture():
    texts = torch.tensor([[4, 2], [4, 1]])
    both = write(Chain(), [5, 6], text=texts)
    assert torch.equal(both[1:], write(Chain(), [6], text=texts[1:]))
    with pytest.raises(ValueError, match="2 texts for 3"):
        write(Chain(), [1, 2, 3], text=texts)


def test_tokens_come_as_often_as_the_model_says():
    """The first token of many seeds, against the softmax that it is drawn from."""
    model = Chain()
    model.length = 1
    drawn = write(model, range(4000))[:, 0]
    expected = model.table[2].softmax(0)
    assert torch.allclose(drawn.bincount(minlength=5) / 4000, expected, atol=4 * (0.25 / 4000) ** 0.5)


def test_guidance_goes_away_from_no_text():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(guided(logits, 3), logits[2:] + 3 * (logits[:2] - logits[2:]), atol=1e-6)
    assert torch.equal(write(Chain(), [3, 4], guidance=0), write(Chain(), [3, 4], text=NULL))
    with pytest.raises(ValueError, match="stands for none"):
        write(Chain(), [1], null=None, guidance=2)


def test_what_stands_for_no_text_may_forget_more_and_is_told_so():
    class Told(Chain):
        def forget(self, untold, state):
            self.untold = untold.tolist()

    model = Told()
    write(model, [1, 2], guidance=3)
    assert model.untold == [False, True]
    write(model, [1, 2], text=torch.tensor([[4, 2], [4, 1]]), guidance=3)
    assert model.untold == [False, False, True]
    model.untold = None
    write(model, [1], guidance=1)
    assert model.untold is None


def test_progress_shows_what_is_written_and_guesses_the_rest():
    model, seen = Chain(), []

    def look(ids):
        seen.append(ids.clone())
        return torch.zeros(len(ids), 3, 2, 2)

    steps = sample(model, TEXT, None, Noise([1, 2]), look=look)
    third = [next(steps) for _ in range(3)][-1]
    ids = drain(steps)
    assert (third.step, third.total) == (3, 6) and seen == []
    assert len(third.peek()) == 2
    assert torch.equal(seen[0][:, :3], ids[:, :3]) and (seen[0][:, 3:] == seen[0][:, 3:4]).all()


@pytest.mark.parametrize("view", [False, True])
def test_weights_are_laid_out_for_the_run_and_no_longer(view):
    """Of a model that is a network, and of one that is a view of a network; also where the run is given up."""

    class Layered(nn.Module, Chain):
        def __init__(self):
            nn.Module.__init__(self)
            Chain.__init__(self)
            self.layer, self.packed = Linear(4, 4).requires_grad_(False), []

        def next(self, ids, state):
            self.packed.append(self.layer.packed is not None)
            return Chain.next(self, ids, state)

    network = Layered()
    model = Chain()
    if view:
        model.network, model.next = network, network.next
    steps = sample(model if view else network, TEXT, None, Noise([1]))
    next(steps)
    assert (network.layer.packed is not None) == (torch.float32 in _dtypes())
    steps.close()
    assert network.layer.packed is None
    drain(sample(model if view else network, TEXT, None, Noise([1])))
    assert network.layer.packed is None and len(network.packed) == 1 + Chain.length


def test_it_can_be_too_much_or_not_a_number():
    with pytest.raises(ValueError, match="7 tokens are given of a picture of 6"):
        write(Chain(), [1], prime=torch.zeros(1, 7, dtype=torch.long))
    model = Chain()
    model.table = model.table * math.nan
    with pytest.raises(WeightsError, match="not finite"):
        write(model, [1])


def test_filters_in_their_order():
    logits = torch.tensor([[2.0, 1.0, 1.0, 0.0, -1.0]])
    assert probabilities(logits, top_k=2)[0].nonzero()[:, 0].tolist() == [0, 1, 2]  # a tie stays
    assert probabilities(logits, top_k=1)[0].tolist() == [1, 0, 0, 0, 0]
    likely = logits.softmax(-1)[0]
    for wanted, p in ((1, likely[0] - 0.01), (2, likely[0] + 0.01), (3, likely[:3].sum() - 0.01), (1, 0.0)):
        assert (probabilities(logits, top_p=float(p))[0] > 0).sum() == wanted  # the one that crosses stays
    both = probabilities(logits, 0.5, top_k=1, top_p=0.5)
    assert both[0].argmax() == 0 and (both > 0).sum() == 1
    assert torch.allclose(probabilities(logits, 2.0), (logits / 2).softmax(-1))
    assert probabilities(logits, 0)[0].tolist() == [1, 0, 0, 0, 0]
    assert top_share(0.9, 100) == 9 and top_share(1.0, 100) == 1  # as int() has it: 1 - 0.9 is a little less than 0.1


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda row: sum(row) > 1e-3), st.floats(0, 1 - 2**-24))
def test_no_code_without_probability_is_ever_drawn(row, u):
    likely = torch.tensor([row])
    picked = int(choose(likely, torch.tensor([u])))
    assert likely[0, picked] > 0
    before, total = likely[0, :picked].sum(), likely.sum()
    assert before / total - 1e-5 <= u <= (before + likely[0, picked]) / total + 1e-5


class Tiny(nn.Module):
    """A bigram that also says its text."""

    def __init__(self, says=True):
        super().__init__()
        self.words, self.pieces, self.says = nn.Embedding(9, 9), nn.Embedding(5, 5), says

    def forward(self, text, ids):
        start = ids.new_zeros(len(ids), 1)
        drawn = self.pieces(torch.cat([start, ids[:, :-1]], 1)) + text.float().sum(1)[:, None, None]
        return (self.words(text[:, :-1]) if self.says else None), drawn

    def targets(self, text):
        return text[:, 1:]


def test_the_loop_exists_once():
    """Nobody else asks a model for its next token, and systems call the loop from one place."""
    source = Path(mindseye.__file__).parent
    texts = {path.relative_to(source).as_posix(): path.read_text(encoding="utf-8") for path in source.rglob("*.py")}
    assert [name for name, text in texts.items() if ".next(" in text] == ["autoregression.py"]
    assert [name for name, text in texts.items() if re.search(r"yield from sample\(", text)] == ["systems/writing.py"]


def test_the_objective_is_cross_entropy_weighted_and_normalised():
    torch.manual_seed(0)
    network, text, ids = Tiny(), torch.randint(1, 9, (3, 4)), torch.randint(0, 5, (3, 6))
    objective = NextToken(network, name="tiny", drop=0)
    loss = objective({"text": text, "ids": ids.to(torch.int16)}, "main")
    said, drawn = network(text, ids)
    words = nn.functional.cross_entropy(said.flatten(0, 1), text[:, 1:].flatten())
    image = nn.functional.cross_entropy(drawn.flatten(0, 1), ids.flatten())
    assert torch.allclose(loss.total, words / 8 + image * 7 / 8)
    assert math.isclose(loss.parts["image_bits"], float(bits(network, text, ids).mean()), rel_tol=1e-5)
    alone = NextToken(Tiny(says=False), name="tiny", drop=0)({"text": text, "ids": ids}, "main")
    assert set(alone.parts) == {"image_bits"}
    assert objective.parts() == {"tiny": network}


def test_texts_are_dropped_as_often_as_asked_and_the_same_when_reseeded():
    seen = []

    class Spy(Tiny):
        def forward(self, text, ids):
            seen.append(text)
            return super().forward(text, ids)

    objective = NextToken(Spy(), name="tiny", null_text=torch.zeros(1, 4, dtype=torch.long), drop=0.25)
    batch = {"text": torch.ones(400, 4, dtype=torch.long), "ids": torch.zeros(400, 6, dtype=torch.long)}
    for seed in (1, 1, 2):
        objective.reseed(seed)
        objective(batch, "main")
    dropped = [(text == 0).all(1) for text in seen]
    assert 60 < int(dropped[0].sum()) < 140 and (seen[0].unique() == torch.tensor([0, 1])).all()
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
