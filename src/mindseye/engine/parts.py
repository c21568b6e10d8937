"""Parts: read from their files once, shared between cards, and known by their sha256.

Hashing four gigabytes takes longer than loading them, so it runs beside the drawing, and once: the library remembers
hashes of files that have not changed.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import torch

from mindseye.engine.policy import Policy, arrange, reuse_memory
from mindseye.errors import WeightsError, WeightsMissing
from mindseye.zoo import File, Foreign, Pocket, Source, Vocabulary

__all__ = ["Parts"]


@final
class Parts:
    """Everything an engine has loaded.

    Args:
        device: Where networks go.
        dtype: What their weights become.
        digest: From a file to its sha256.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, digest: Callable[[Path], str]) -> None:
        self.device, self.dtype = device, dtype
        self._digest = digest
        self._held: dict[Source, Any] = {}
        self._hashes: dict[Source, Future[str]] = {}
        self._hasher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sha256")

    def get(self, source: Source, policy: Policy | None = None) -> Any:
        """The part, from its file or from memory.

        Args:
            source: Where it comes from.
            policy: How large networks are held and run; as the class was told when None.

        Raises:
            WeightsMissing: A file of its is not there.
            WeightsError: A file of its is damaged, foreign, or holds numbers that are not finite.
        """
        if source not in self._held:
            for path in source.files:
                if not path.exists():
                    raise WeightsMissing(
                        f"the weights file {path.name} is not there",
                        hint=f"it belongs in {path.parent}; mindseye train makes it, or install the package again",
                    )
            self._held[source] = self._read(source, policy)
            if files := [path for path in source.files if path.is_file()]:
                self._hashes[source] = self._hasher.submit(self._digest, files[0])
        return self._held[source]

    def fingerprint(self, source: Source) -> str | None:
        """sha256 of the part's (first) file; None if it is not loaded, or is no file."""
        return self._hashes[source].result() if source in self._hashes else None

    def clear(self) -> None:
        """Forget them all."""
        self._held.clear()
        self._hashes.clear()

    def _read(self, source: Source, policy: Policy | None) -> Any:
        """A network on the device, or a tokenizer."""
        if isinstance(source, Foreign):
            from mindseye.checkpoints.load import load_foreign

            if policy is None:
                return load_foreign(source.part, dtype=self.dtype, device=self.device)
            reuse_memory()
            network = load_foreign(source.part, policy.stored, self.device, policy.memory_format)
            return arrange(network, policy)
        if isinstance(source, Vocabulary):
            return _vocabulary(source)
        if source.length is not None:
            return _tokenizer(source)
        from mindseye.checkpoints.save import load_part

        return load_part(source.path, dtype=self.dtype).to(self.device)


def _tokenizer(source: Pocket | File) -> Any:
    from mindseye.text.plain_tokenizer import PlainTokenizer
    from mindseye.text.tokenizer import Tokenizer

    try:
        if source.plain:
            return PlainTokenizer.of(Tokenizer.from_file(source.path, max(source.length or 0, 3)), source.length or 0)
        return Tokenizer.from_file(source.path, source.length or 0)
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"{source.path.name} is no tokenizer file: {error!s:.200}") from None


def _vocabulary(source: Vocabulary) -> Any:
    from mindseye.text.tokenizer import Tokenizer

    if source.kind == "bert":
        from mindseye.text.bert_tokenizer import BertTokenizer

        return BertTokenizer.from_file(source.folder or Path(), source.length)
    from mindseye.text.plain_tokenizer import PlainTokenizer

    try:
        if source.kind == "char-bpe":
            return PlainTokenizer.char_bpe(source.folder or Path(), source.length)
        if source.kind == "plain":
            if source.folder is None:
                return PlainTokenizer.clip(source.length)
            return PlainTokenizer.from_file(source.folder, source.length)
        if source.folder is None:
            return Tokenizer.packaged(source.length, source.pad)
        return Tokenizer.clip(source.folder, source.length, source.pad)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{source.folder} holds no vocabulary that can be read: {error!s:.200}") from None
