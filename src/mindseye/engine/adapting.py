"""What a prompt or an option calls by name, found in the user's library and put to use.

`<lora:name:0.8>` merges an adapter into the networks for as long as prompts ask for the same ones; the next prompt that
does not gets the networks back to the bit. Learned words (textual inversion) are called by their plain
name, another autoencoder by the options `vae` and `preview`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, final

from mindseye.checkpoints.adapters import (
    Attached,
    Embedding,
    Weights,
    attach,
    check_width,
    fits,
    read_adapter,
    read_embedding,
)
from mindseye.checkpoints.index import Entry
from mindseye.checkpoints.library import Library
from mindseye.errors import PromptError, WeightsError
from mindseye.request import Request
from mindseye.text.chunks import called
from mindseye.text.prompt import NetworkUse, split_networks

__all__ = ["Adapting"]

_KINDS = ("lora", "lyco")


@final
class Adapting:
    """What is merged into which networks right now.

    Args:
        library: Where names lead.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._merged: Attached | None = None
        self._key: tuple[Any, tuple[NetworkUse, ...]] | None = None
        self._brought: dict[str, Embedding] = {}
        self._words: dict[Path, Embedding] = {}
        self._codecs: dict[str, Any] = {}
        self._merged_files: dict[str, Path] = {}
        self._called_files: dict[str, Path] = {}

    def fit(self, system: Any, request: Request) -> tuple[Any, list[str]]:
        """The system with what the request's prompt calls for, and a sentence on each liberty taken.

        Raises:
            UnknownName: No such adapter; with the nearest.
            PromptError: An adapter where there is nothing to adapt, or of a kind that cannot be had.
            WeightsError: An adapter for another base, or damaged.
        """
        self._called_files = {}
        _, uses = split_networks(request.prompt)
        networks = getattr(system, "adaptable", None)
        if networks is None:
            if uses:
                raise PromptError(f"{request.model} has no networks that <{uses[0].kind}:{uses[0].name}> could adapt")
            self.release()
            return system, []
        notices = self._merge(networks, uses)
        plain, _ = split_networks(request.prompt)
        words = self._called(f"{plain} {request.negative} {request.options.get('toward', '')}", system)
        changes: dict[str, Any] = {"words": words} if words else {}
        for option, part in (("vae", "codec"), ("preview", "glance")):
            if name := str(request.options.get(option, "")):
                changes[part] = self._codec(name, system)
                if option == "vae":
                    self._called_files[option] = self._library.usable(name, "vae").path
        return (replace(system, **changes) if changes else system), notices

    def fingerprints(self) -> dict[str, str]:
        """Of what the last request called: as pictures' metadata has them, by ``lora:NAME``, ``embedding:NAME``, "vae".

        A LoRA's is that of its tensors, which stays when somebody edits its notes.
        """
        found = {}
        for name, path in (self._merged_files | self._called_files).items():
            if path.is_file():
                hashes = self._library.hashes(path)
                found[name] = (name.startswith("lora:") and hashes.tensors) or hashes.sha256
        return found

    def release(self) -> None:
        """Take out whatever is merged."""
        if self._merged is not None:
            self._merged.detach()
        self._merged = self._key = None
        self._brought, self._merged_files = {}, {}

    def _merge(self, networks: dict[str, Any], uses: tuple[NetworkUse, ...]) -> list[str]:
        """Have exactly these adapters merged."""
        # The networks, and not their addresses: those are given to others once a model is unloaded.
        if self._merged is not None and self._key is not None:
            if self._key[0] is networks["unet"] and self._key[1] == uses:
                return list(self._merged.notices)
        self.release()
        if not uses:
            return []
        chosen = []
        for use in uses:
            if use.kind not in _KINDS:
                raise PromptError(
                    f"<{use.kind}:{use.name}>: adapters of this kind cannot be used; {' and '.join(_KINDS)} can"
                )
            entry = self._library.usable(use.name, "lora")
            chosen.append((read_adapter(entry.path), Weights(use.unet_weight, use.text_weight, use.partial)))
        self._merged, self._key = attach(networks, chosen), (networks["unet"], uses)
        self._brought = {word.name: word for adapter, _ in chosen for word in adapter.embeddings}
        self._merged_files = {f"lora:{use.name}": each.path for use, (each, _) in zip(uses, chosen, strict=True)}
        return list(self._merged.notices)

    def _codec(self, name: str, system: Any) -> Any:
        """Another autoencoder for the system's latents, on its device."""
        from mindseye.checkpoints.codecs import load_codec

        like = next(system.unet.parameters())
        if name not in self._codecs:
            scale = getattr(system.codec, "latents_std", None)
            self._codecs[name] = load_codec(
                self._library.usable(name, "vae").path,
                like.dtype,
                channels=system.unet.config.out_channels,
                scale=None if scale is None else float(1 / scale.flatten()[0]),
            ).to(like.device)
        return self._codecs[name]

    def _called(self, text: str, system: Any) -> dict[str, Any]:
        """The learned words that stand in the text, as the system's text encoders read them.

        Of several files of one name, in folders for different bases, the one that they can read.

        Raises:
            WeightsError: They can read none of them.
        """
        widths = {tower.name: tower.width for tower in system.towers}
        places: dict[str, list[Entry]] = {}
        for entry in self._library.entries("embedding"):
            if not entry.problem:
                for name in {entry.name.rpartition("/")[2].lower(), *(self._tokens(entry) if "<" in text else ())}:
                    places.setdefault(name, []).append(entry)
        spelled = {name.lower(): name for name in self._brought}
        words: dict[str, Embedding] = {}
        for name in called(text, {*places, *spelled}):
            if name in spelled:
                words[spelled[name]] = self._brought[spelled[name]]
                check_width(words[spelled[name]], widths)
                continue
            here = [(entry, self._word(entry)) for entry in places[name]]
            entry, word = next((each for each in here if fits(each[1], widths)), here[0])
            check_width(word, widths)
            words[name] = word
            self._called_files[f"embedding:{entry.name}"] = entry.path
        return {name: word.vectors for name, word in words.items()}

    def _tokens(self, entry: Entry) -> set[str]:
        """What a word calls itself. diffusers' do so in angle brackets; files are not opened to look for others."""
        try:
            return {name.lower() for name in self._word(entry).names}
        except WeightsError:  # that is said when it is called
            return set()

    def _word(self, entry: Entry) -> Embedding:
        """A learned word of the library's, read once."""
        if entry.path not in self._words:
            self._words[entry.path] = read_embedding(entry.path)
        return self._words[entry.path]
