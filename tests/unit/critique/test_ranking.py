"""Who goes best with the words."""

import torch

from mindseye.critique.ranking import Ranking


class Eye:
    """A critic of brightness: words are numbers, pictures are their mean, both on a half circle."""

    size = 4

    def __init__(self):
        self.told = []

    def embed_text(self, prompts):
        self.told = list(prompts)
        return circle(torch.tensor([float(prompt) for prompt in prompts]))

    def embed_image(self, pixels):
        assert pixels.shape[2:] == (4, 4)
        return circle(pixels.mean((1, 2, 3)))


def circle(values):
    return torch.stack([torch.cos(values), torch.sin(values)], 1)


PIXELS = torch.tensor([-0.9, 0.0, 0.5, 0.9]).view(4, 1, 1, 1).expand(4, 3, 8, 12)


def test_nearness_to_the_prompt_less_nearness_to_the_negative_one():
    plain = Ranking.of(Eye(), "0.5").scores(PIXELS)
    assert plain.argmax() == 2 and torch.allclose(plain, torch.cos(PIXELS[:, 0, 0, 0] - 0.5))
    against = Ranking.of(Eye(), "0.5", "0.9").scores(PIXELS)
    assert torch.allclose(against, plain - torch.cos(PIXELS[:, 0, 0, 0] - 0.9))
    assert against.argmax() == 0


def test_names_of_adapters_are_not_read():
    eye = Eye()
    Ranking.of(eye, "<lora:film:0.8> 0.5", "  ")
    assert eye.told == ["0.5"]
