"""The openly licensed icon sets of the corpus: which, under which licence, from where, and how they are read.

Every set comes from the npm registry, through the npm client, pinned by version and by the registry's own integrity
hash, so that the corpus is the same bytes for everyone. Permissive licences only: share-alike sets (OpenMoji,
EmojiOne v1) stay out.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mindseye.errors import DataError

__all__ = ["EMOJIBASE", "ICON_SETS", "Icon", "IconSet", "fetch", "read_icons"]


@dataclass(frozen=True, kw_only=True)
class IconSet:
    """One published set of icons, pinned."""

    key: str
    package: str
    version: str
    integrity: str
    """The registry's ``sha512-…`` of the package file."""
    licence: str
    title: str
    author: str
    source: str
    styles: tuple[str, ...]
    """How captions call the set's style; the first is the plain description."""


@dataclass(frozen=True, kw_only=True)
class Icon:
    """One drawing of a set."""

    set: str
    name: str
    svg: str


ICON_SETS: Final[tuple[IconSet, ...]] = (
    IconSet(
        key="noto",
        package="@iconify-json/noto",
        version="1.2.9",
        integrity="sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        licence="Apache-2.0",
        title="Noto Emoji",
        author="Google",
        source="https://github.com/googlefonts/noto-emoji",
        styles=("soft shaded", "noto style"),
    ),
    IconSet(
        key="noto-v1",
        package="@iconify-json/noto-v1",
        version="1.2.5",
        integrity="sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        licence="Apache-2.0",
        title="Noto Emoji (v1)",
        author="Google",
        source="https://github.com/googlefonts/noto-emoji",
        styles=("classic android", "noto v1 style"),
    ),
    IconSet(
        key="twemoji",
        package="@iconify-json/twemoji",
        version="1.2.5",
        integrity="sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        licence="CC-BY-4.0",
        title="Twitter Emoji (Twemoji)",
        author="Twitter, Inc and other contributors",
        source="https://github.com/jdecked/twemoji",
        styles=("simple flat cartoon", "twemoji style"),
    ),
    IconSet(
        key="fluent-emoji",
        package="@iconify-json/fluent-emoji",
        version="1.2.7",
        integrity="sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        licence="MIT",
        title="Fluent Emoji",
        author="Microsoft Corporation",
        source="https://github.com/microsoft/fluentui-emoji",
        styles=("glossy 3d", "fluent style"),
    ),
    IconSet(
        key="fluent-emoji-flat",
        package="@iconify-json/fluent-emoji-flat",
        version="1.2.6",
        integrity="sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        licence="MIT",
        title="Fluent Emoji Flat",
        author="Microsoft Corporation",
        source="https://github.com/microsoft/fluentui-emoji",
        styles=("flat", "fluent flat style"),
    ),
    IconSet(
        key="emojione",
        package="@iconify-json/emojione",
        version="1.2.3",
        integrity="sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        licence="CC-BY-4.0",
        title="Emoji One (Colored), now EmojiTwo",
        author="Emoji One",
        source="https://github.com/EmojiTwo/emojitwo",
        styles=("bright cartoon", "emojione style"),
    ),
    IconSet(
        key="fxemoji",
        package="@iconify-json/fxemoji",
        version="1.2.2",
        integrity="sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        licence="Apache-2.0",
        title="Firefox OS Emoji",
        author="Mozilla",
        source="https://github.com/mozilla/fxemoji",
        styles=("muted minimal", "firefox style"),
    ),
    IconSet(
        key="streamline-emojis",
        package="@iconify-json/streamline-emojis",
        version="1.2.4",
        integrity="sha512-iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
        licence="CC-BY-4.0",
        title="Streamline Emojis",
        author="Streamline",
        source="https://github.com/webalys-hq/streamline-vectors",
        styles=("outlined", "streamline style"),
    ),
    IconSet(
        key="flat-color-icons",
        package="@iconify-json/flat-color-icons",
        version="1.2.3",
        integrity="sha512-KcmJ7CY0TKFv5GuBjiS4/v++jEcNXna1jfY+yq014tnw/MN/jMI2oYpoMHGuIpYtUqDu7eove+WySnOYO8nS3w==",
        licence="MIT",
        title="Flat Color Icons",
        author="Icons8",
        source="https://github.com/icons8/flat-Color-icons",
        styles=("flat icon", "icons8 style"),
    ),
)
EMOJIBASE: Final = IconSet(
    key="emojibase",
    package="emojibase-data",
    version="17.0.0",
    integrity="sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    licence="MIT",
    title="Emojibase",
    author="Miles Johnson",
    source="https://github.com/milesj/emojibase",
    styles=(),
)
"""Names and keywords of the emoji, not pictures."""


def fetch(pin: IconSet, cache: Path) -> Path:
    """The package file of ``pin`` in ``cache``, downloaded with npm when absent, always checked.

    Raises:
        DataError: npm is missing or fails, or the file is not the pinned one.
    """
    name = f"{pin.package.replace('@', '').replace('/', '-')}-{pin.version}.tgz"
    path = cache / name
    if not path.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise DataError(
                f"the icon set {pin.package} has to be downloaded and npm is not installed",
                hint=f"install Node.js, which brings npm, or put the file {name} into {cache} yourself",
            )
        cache.mkdir(parents=True, exist_ok=True)
        run = subprocess.run(
            [npm, "pack", "--silent", f"{pin.package}@{pin.version}", "--pack-destination", str(cache)],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode or not path.exists():
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise DataError(f"npm could not fetch {pin.package}@{pin.version}: {last}", hint="is the network up?")
    digest = "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != pin.integrity:
        raise DataError(
            f"{path} is not the pinned {pin.package}@{pin.version}: its hash differs",
            hint="delete the file and run the command again",
        )
    return path


def read_json(package: Path, member: str) -> Any:
    """One JSON file out of an npm package file, without unpacking it to disk."""
    with tarfile.open(package, "r:gz") as tar:
        stream = tar.extractfile(f"package/{member}")
        if stream is None:
            raise DataError(f"{package} holds no {member}")
        return json.load(stream)


def read_icons(pin: IconSet, package: Path) -> Iterator[Icon]:
    """Every visible icon of a set as a complete SVG, in the set's own order. Aliases repeat pictures and stay out."""
    data = read_json(package, "icons.json")
    for name, icon in data["icons"].items():
        if icon.get("hidden"):
            continue
        left, top = icon.get("left", data.get("left", 0)), icon.get("top", data.get("top", 0))
        width = icon.get("width", data.get("width", 16))
        height = icon.get("height", data.get("height", 16))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        )
        yield Icon(set=pin.key, name=name, svg=svg)
