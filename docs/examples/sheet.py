"""A sheet of pictures, each from a phrase that no training caption holds; the README's picture is made by this.

Run as ``python docs/examples/sheet.py OUT.png [CARD [COUNT]]``: another card than the default one, fewer phrases.
"""

import sys
from pathlib import Path

import mindseye
from mindseye.pictures import save_png, sheet
from mindseye.request import DEFAULT

PROMPTS = (
    "a blue strawberry",
    "a green fox",
    "a pink elephant on a yellow background",
    "an orange penguin",
    "a red owl on a blue background",
    "a yellow whale",
    "a purple banana",
    "a cyan cat face",
    "a grinning face on a purple background",
    "a crying face on an orange background",
    "an astronaut on a pink background",
    "a robot on a green background",
    "a ghost on an orange background",
    "a rocket on a purple background",
    "a sailboat on a yellow background",
    "a snowman on a red background",
    "an apple left of a banana",
    "a cat above a dog",
    "a star next to a moon",
    "a heart above a rose",
    "a red circle left of a blue square",
    "a yellow star above a purple ring",
    "a green heart below a pink diamond",
    "a black cross right of an orange crescent",
    "two red hearts",
    "three yellow stars on a blue background",
    "two frogs",
    "three cherries on a cyan background",
    "a birthday cake, outlined",
    "a dragon, glossy 3d",
    "a hot air balloon, simple flat cartoon",
    "a violin, soft shaded on a gray background",
)


def main(path: Path, card: str = DEFAULT, count: str = "32") -> None:
    """Draw the sheet: picture i has seed i, so the sheet is the same every time."""
    every = len(PROMPTS) // int(count)
    wanted = list(enumerate(PROMPTS))[::every]
    save_png(sheet([mindseye.generate(prompt, model=card, seed=seed).images[0] for seed, prompt in wanted]), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
