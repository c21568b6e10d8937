"""From one prompt and seed to another, in small steps: the frames, and the files they become.

A frame is an ordinary request. Between two prompts its option `toward` names the second and `toward_amount` says how
far it has gone: the text encoder's answers are mixed, not the words. Between two seeds `variation_seed` and
`variation_strength` do the same for the noise (`mindseye.noise.slerp`). So any frame can be drawn again alone.

Written as GIF, WebP or APNG (`.apng`), as a strip (`.png`), or as MP4 where the program ffmpeg is installed; whole or
not at all, like all files here.
"""

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mindseye.errors import LimitError, OptionError, OutputError
from mindseye.pictures import write_whole
from mindseye.request import Progress, Request, Result, Scalar, Steps

__all__ = ["ENDINGS", "check_ffmpeg", "frames", "play", "save", "strip"]

ENDINGS = (".gif", ".webp", ".apng", ".png", ".mp4")

MOST_FRAMES = 1000

Draw: TypeAlias = Callable[[Request], Steps[Result]]


def frames(
    request: Request, prompts: Sequence[str], count: int, *, to_seed: int | None = None, smooth: bool = False
) -> list[Request]:
    """The requests of all frames.

    Args:
        request: What they have in common; its seed must be given.
        prompts: One or more, visited evenly in this order.
        count: How many frames, first and last included.
        to_seed: The seed whose noise the last frame has; the request's own throughout when None.
        smooth: Whether to start and stop gently.

    Raises:
        OptionError: Nothing that changes, fewer than two frames, or a request without a seed.
        LimitError: More than `MOST_FRAMES`.
    """
    if len(prompts) < 1 or (len(prompts) == 1 and to_seed is None):
        raise OptionError(
            "there is nothing to go to", hint="give a second prompt, or another seed: --seed 1 --to-seed 9"
        )
    if count < 2:
        raise OptionError(f"{count} frames show no way from one to the other; ask for 2 or more")
    if count > MOST_FRAMES:
        raise LimitError(f"{count:,} frames are too many; at most {MOST_FRAMES:,} are drawn")
    if request.seed is None:
        raise OptionError("all frames need the same seed, and none was given")
    made = []
    for number in range(count):
        way = number / (count - 1)
        way = (1 - math.cos(math.pi * way)) / 2 if smooth else way
        options: dict[str, Scalar] = dict(request.options)
        # The last stretch includes its end.
        stretch = min(int(way * (len(prompts) - 1)), max(len(prompts) - 2, 0))
        amount = way * (len(prompts) - 1) - stretch
        if len(prompts) > 1 and amount > 0:
            options |= {"toward": prompts[stretch + 1], "toward_amount": round(amount, 9)}
        if to_seed is not None and way > 0:
            options |= {"variation_seed": to_seed, "variation_strength": round(way, 9)}
        # Between two seeds every frame would have a winner of its own.
        alone: dict[str, Any] = {} if to_seed is None else {"candidates": 1, "keep": 1}
        made.append(replace(request, prompt=prompts[stretch], count=1, options=options, **alone))
    return made


def play(requests: Sequence[Request], draw: Draw, done: list[Result]) -> Steps[None]:
    """Draw all frames into ``done``, which keeps what there is when the drawing is stopped."""
    for number, request in enumerate(requests):
        running = draw(request)
        try:
            while True:
                now = next(running)
                total = max(now.total, 1)
                step = number * total + min(now.step, total)
                yield Progress(f"frame {number + 1}", step, len(requests) * total, now.peek)
        except StopIteration as stop:
            done.append(stop.value)
        finally:
            running.close()


def strip(pictures: Sequence[Image.Image], columns: int | None = None, gap: int = 4) -> Image.Image:
    """The frames side by side, row by row; all in one row when ``columns`` is None."""
    columns = len(pictures) if columns is None else columns
    width, height = (max(sides) for sides in zip(*(picture.size for picture in pictures), strict=True))
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for index, picture in enumerate(pictures):
        whole.paste(picture, (index % columns * (width + gap), index // columns * (height + gap)))
    return whole


def save(
    pictures: Sequence[Image.Image],
    path: Path,
    *,
    seconds: float,
    bounce: bool = False,
    about: dict[str, Any] | None = None,
    replace: bool = True,
) -> bool:
    """Write frames as what the path's ending says.

    Args:
        pictures: At least one, all of one size.
        path: Ends in one of `ENDINGS`; `.png` is a strip.
        seconds: How long they take in all, going one way.
        bounce: Whether they also go back, for a loop without a jump.
        about: Written beside them as JSON, where the format has a place for it.
        replace: Whether a file that is there already is replaced.

    Returns:
        Whether it was written; False only where a file is there and may not be replaced.

    Raises:
        OptionError: Another ending, or `.mp4` without ffmpeg.
        OutputError: It cannot be written there.
    """
    kind = path.suffix.lower()
    shown = [picture.convert("RGB") for picture in pictures]
    if bounce and kind != ".png":
        shown += shown[-2:0:-1]
    pause = max(round(1000 * seconds / max(len(pictures), 1)), 20)
    text = json.dumps(about or {}, ensure_ascii=False)
    chunks = PngInfo()
    chunks.add_text("mindseye-morph", text)
    many: dict[str, Any] = {"save_all": True, "append_images": shown[1:], "duration": pause, "loop": 0}

    def write(stream: BinaryIO) -> None:
        if kind == ".gif":
            paletted = _paletted(shown)
            more = {**many, "append_images": paletted[1:], "comment": text.encode()[:10_000], "optimize": False}
            paletted[0].save(stream, format="GIF", **more)
        elif kind == ".webp":
            shown[0].save(stream, format="WEBP", quality=90, **many)
        elif kind == ".apng":
            shown[0].save(stream, format="PNG", pnginfo=chunks, **many)
        elif kind == ".png":
            strip(shown).save(stream, format="PNG", pnginfo=chunks)
        else:
            stream.write(_mp4(shown, pause))

    if kind not in ENDINGS:
        raise OptionError(f"{path} has none of the endings {', '.join(ENDINGS)}", hint=f"-o {path.stem}.gif")
    if kind == ".mp4":
        check_ffmpeg()
    return write_whole(path, write, replace=replace)


def check_ffmpeg() -> None:
    """Raise OptionError where there is no ffmpeg."""
    if shutil.which("ffmpeg") is None:
        raise OptionError("MP4 is written by the program ffmpeg, which is not installed", hint="-o morph.webp")


def _paletted(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """All frames in one palette of 256 colours: palettes of their own would flicker."""
    # A palette is chosen from a sample of every frame.
    small = [picture.resize((max(picture.width // 2, 1), max(picture.height // 2, 1))) for picture in pictures]
    palette = strip(small[:: max(1, len(small) // 64)], columns=8, gap=0).quantize(256, Image.Quantize.MEDIANCUT)
    return [picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for picture in pictures]


def _mp4(pictures: Sequence[Image.Image], pause: int) -> bytes:
    """H.264, its sides made even, by ffmpeg."""
    width, height = pictures[0].size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mp4"
        command = [
            "ffmpeg", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
            "-r", f"{1000 / pause:.3f}", "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p",
            "-crf", "16", "-y", str(path),
        ]  # fmt: skip
        ran = subprocess.run(command, input=b"".join(each.tobytes() for each in pictures), capture_output=True)
        if ran.returncode or not path.is_file():
            raise OutputError(f"ffmpeg could not write the film: {ran.stderr.decode(errors='replace')[:200].strip()}")
        return path.read_bytes()
