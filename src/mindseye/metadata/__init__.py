"""How a picture was made, written into the picture; and read out of other programs' pictures.

Written are A1111's plain text, which nearly every gallery reads, and JSON with the whole resolved request, which is
what `--like` draws from (`own`). Read are these and what A1111, ComfyUI, InvokeAI, Fooocus, NovelAI, SwarmUI, Easy
Diffusion and Draw Things write, one file each, from wherever a picture's format keeps its texts (`chunks`, `stealth`),
into the same fields (`found`), and from those into a request (`translate`).

All of it faces strangers' files: every reader is linear in what it reads, bounded, and raises nothing but `ImageError`.
Nothing here imports torch.
"""

from mindseye.metadata.found import Fields, Found, Lora
from mindseye.metadata.infotext import LONGEST_TEXT, Infotext, format_infotext, parse_infotext
from mindseye.metadata.own import SCHEMA, Account, exif, infotext, parse_account, texts
from mindseye.metadata.reader import read, read_chunks, read_text
from mindseye.metadata.stealth import read_stealth, write_stealth
from mindseye.metadata.translate import Drawer, to_request

__all__ = [
    "LONGEST_TEXT",
    "SCHEMA",
    "Account",
    "Drawer",
    "Fields",
    "Found",
    "Infotext",
    "Lora",
    "exif",
    "format_infotext",
    "infotext",
    "parse_account",
    "parse_infotext",
    "read",
    "read_chunks",
    "read_stealth",
    "read_text",
    "texts",
    "to_request",
    "write_stealth",
]
