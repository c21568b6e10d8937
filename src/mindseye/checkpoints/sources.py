"""From what a user names to files on their disk: a path, `hub:org/repo`, or the address of one file.

Downloads are checked (against the sha256 that the hub states, against the length that a server states) and appear
under their name only when they are whole. Nothing that comes is executed.
"""

import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mindseye.checkpoints.hub import WEIGHTS, Fetched, Hub, Precision, delete, from_hub, room
from mindseye.errors import OutputError, UsageError, WeightsError, WeightsMissing, nearest
from mindseye.request import Progress, Steps

__all__ = ["WEIGHTS", "Fetched", "Hub", "Local", "Precision", "Url", "delete", "fetch", "parse"]

_REPO = r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}"
_HUB = re.compile(rf"(?:hub|hf):(?://)?(?P<repo>{_REPO})(?:@(?P<revision>[\w./-]*?\w))?(?:/(?P<path>[^@]+?))?/?")
_WEB = re.compile(
    rf"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>{_REPO})"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[^/?#]+)(?:/(?P<path>[^?#]+?))?)?/?(?:[?#].*)?"
)
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Local:
    """A file or folder of the user's."""

    path: Path


@dataclass(frozen=True)
class Url:
    """One file on the web."""

    address: str


def parse(text: str) -> Local | Hub | Url:
    """What a user's word means.

    Args:
        text: A path, `hub:org/repo[@revision][/folder or file]`, an address on huggingface.co, or another https one.

    Raises:
        UsageError: It looks like a hub id or address and is none.
    """
    text = text.strip()
    for pattern in (_HUB, _WEB):
        if found := pattern.fullmatch(text):
            path = urllib.parse.unquote(found["path"] or "")
            if ".." in PurePosixPath(path).parts:
                raise UsageError(f"{text} leads out of its repository")
            return Hub(found["repo"], found["revision"] or "", path)
    if text.startswith(("hub:", "hf:")):
        raise UsageError(
            f"{text!r} names nothing on the hub", hint="say hub:organisation/repository, with /file for a single file"
        )
    if text.lower().startswith("https://"):
        return Url(text)
    if "://" in text:
        raise UsageError(f"{text.partition('://')[0]}:// is not read", hint="give a path, hub:org/repo or https://...")
    if not text or "\0" in text:
        raise UsageError("no path was given", hint="give a path, hub:org/repo or https://...")
    return Local(Path(text).expanduser())


def fetch(text: str, *, downloads: Path, precision: Precision = "half") -> Steps[Fetched]:
    """Bring what the text names onto this machine; yields progress in megabytes.

    Args:
        text: As `parse` reads it.
        downloads: Folder for files that do not come from the hub (those live in its own cache).
        precision: Which weights to take where a repository has both.

    Raises:
        UsageError: No such path or repository, or one that must be asked for more precisely.
        WeightsError: What came is damaged or no weights.
        OutputError: No room or no permission.
        MindseyeError: No network.
    """
    meant = parse(text)
    if isinstance(meant, Local):
        return Fetched(path=_local(meant.path))
    if isinstance(meant, Hub):
        return (yield from from_hub(meant, precision))
    return (yield from _from_web(meant.address, downloads))


def _local(path: Path) -> Path:
    """The path, made absolute."""
    try:
        there = path.exists()
    except OSError:
        there = False
    if there:
        return path.resolve()
    if re.fullmatch(_REPO, str(path)):
        raise WeightsMissing(f"there is no file or folder {path}", hint=f"if it is on the hub, say hub:{path}")
    close = _closest(path)
    raise WeightsMissing(f"there is no file or folder {path}", hint=f"did you mean {close}?" if close else "")


def _closest(path: Path) -> Path | None:
    """The file beside it with the name most like it."""
    try:
        beside = nearest(path.name, (each.name for each in path.parent.iterdir()))
    except OSError:
        return None
    return path.parent / beside if beside else None


def _open(address: str) -> Any:
    """The response; the one place that touches the network for a plain address."""
    import urllib.request  # it takes longer to load than a list of models takes to print

    request = urllib.request.Request(address, headers={"User-Agent": "mindseye"})
    return urllib.request.urlopen(request, timeout=30)  # noqa: S310 (https only: `parse`)


def _from_web(address: str, downloads: Path) -> Steps[Fetched]:
    """One file of weights, under its own name in the downloads folder."""
    import urllib.error

    yield Progress("download", 0, 1, tuple)
    part: Path | None = None
    try:
        with _open(address) as response:
            name = _file_name(response.headers, response.geturl() or address)
            target = _free_name(downloads / name)
            total = int(response.headers.get("Content-Length") or 0)
            room(downloads, total, name)
            downloads.mkdir(parents=True, exist_ok=True)
            part = downloads / f".{name}.part{os.getpid()}"
            done = 0
            with part.open("wb") as file:
                while block := response.read(_BLOCK):
                    file.write(block)
                    done += len(block)
                    yield Progress("download", done >> 20, max(1, max(total, done) >> 20), tuple)
                file.flush()
                os.fsync(file.fileno())
        if total and done != total:
            raise WeightsError(f"{name} broke off after {done:,} of {total:,} bytes", hint="try again")
        os.replace(part, target)
    except urllib.error.HTTPError as error:
        reason = {401: "it wants a login", 403: "it is forbidden", 404: "there is nothing there"}.get(error.code, "")
        raise WeightsMissing(
            f"{address} answered {error.code}{f': {reason}' if reason else ''}",
            hint="download it in a browser and add the file by its path" if error.code in (401, 403) else "",
        ) from None
    except urllib.error.URLError as error:
        raise WeightsMissing(f"{address} cannot be reached ({error.reason})", hint="is there a network?") from None
    except (TimeoutError, ConnectionError) as error:
        raise WeightsMissing(f"{address} broke off ({error})", hint="try again") from None
    except OSError as error:
        raise OutputError(f"{downloads} cannot be written to: {error.strerror or error}") from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return Fetched(path=target, source=address, new=(target,))


def _file_name(headers: Any, address: str) -> str:
    """The name a download gets: as the server says, or as the address ends; nothing that leads elsewhere."""
    if not address.lower().startswith("https://"):
        raise UsageError(f"it is answered from {address[:60]}, which is not https")
    if (headers.get("Content-Type") or "").startswith(("text/html", "application/json")):
        raise WeightsError("the address answers with a web page, not with weights", hint="give the file's own address")
    said = re.search(r"filename\*?=(?:UTF-8'')?\"?([^\";]+)", headers.get("Content-Disposition") or "")
    path = said[1] if said else urllib.parse.urlparse(address).path
    name = re.sub(r"[^\w.+() -]", "_", urllib.parse.unquote(path).replace("\\", "/").rpartition("/")[2]).lstrip(". ")
    if not name.lower().endswith(WEIGHTS):
        raise UsageError(f"{name or 'that address'} is no file of weights ({', '.join(WEIGHTS)})")
    return name[-200:]


def _free_name(path: Path) -> Path:
    """The path, or one beside it that nothing has yet."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
