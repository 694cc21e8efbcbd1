"""The adaptation problem that a configuration states: labelled source, unlabelled target, and
labelled validation images that only measure."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from domains.datasets import Sample, find_samples, layout_of, listing
from domains.inspection import usable
from domains.label_space import load_label_space
from runtime.config import DataConfig, DomainConfig
from runtime.console import Console
from runtime.errors import UserError

ROLES = ("source", "target", "validation")


class Problem:
    """The three data sets by role: "source", "target", "validation".

    Rendered streets without a root lie in `folder`/data/ROLE; they are files only once their
    stage has run, and what depends on them is known by their settings. The headers of all other
    files are looked at once, before anything uses them, with progress on `console`. With a `limit`,
    each data set is cut off after so many samples.
    """

    def __init__(
        self,
        config: DataConfig,
        folder: Path,
        console: Console | None = None,
        limit: int | None = None,
    ) -> None:
        self.config = config
        self.limit = limit
        self.folder = folder
        self.console = console
        self.space = load_label_space(config.label_space)
        self.samples = cache(self._samples)
        for role in ROLES:
            layout_of(self.domain(role), f"data.{role}")
            if role != "target":  # whose labels are never opened
                self._require_encoding(role)

    def _require_encoding(self, role: str) -> None:
        if self.encoding(role) not in self.space.encodings:
            raise UserError(
                f"data.{role}.encoding: '{self.encoding(role)}' is not in the label space "
                f"'{self.space.name}', which has {', '.join(self.space.encodings)}; set "
                f"data.{role}.encoding, or data.{role}.layout if the files are not of that layout"
            )

    def domain(self, role: str) -> DomainConfig:
        """The role's section; rendered streets with their folder filled in."""
        domain: DomainConfig = getattr(self.config, role)
        if self.is_rendered(role):
            return DomainConfig(**{**vars(domain), "root": str(self.folder / "data" / role)})
        return domain

    def is_rendered(self, role: str) -> bool:
        """Whether the run renders the role's images itself."""
        domain: DomainConfig = getattr(self.config, role)
        return domain.layout == "streets" and domain.root is None

    def _samples(self, role: str) -> list[Sample]:
        # The target's labels are never opened, even where they lie beside the images.
        domain, key = self.domain(role), f"data.{role}"
        samples = find_samples(domain, key, labelled=role != "target")[: self.limit]
        if self.is_rendered(role):
            return samples
        if self.console is None:
            return usable(samples, domain.on_error, key)
        with self.console.track(f"looking at {key}", len(samples), unit="samples") as task:
            return usable(samples, domain.on_error, key, task.advance)

    def count(self, role: str) -> int:
        """Number of images, known before they are rendered too."""
        return self.domain(role).scenes if self.is_rendered(role) else len(self.samples(role))

    def size(self, role: str) -> tuple[int, int] | None:
        """Width and height at which the role's images are used; None: as stored."""
        size = self.domain(role).size
        return (size[0], size[1]) if size else None

    def encoding(self, role: str) -> str:
        return layout_of(self.domain(role), f"data.{role}").encoding

    def table(self, role: str) -> np.ndarray:
        """From the ids in the role's label files to train ids."""
        return self.space.table(self.encoding(role))

    def settings(self, role: str) -> dict[str, Any]:
        """What a result that uses the role's images depends on."""
        if self.is_rendered(role):
            return {"size": self.size(role)}
        return {"size": self.size(role), "files": digest(listing(self.samples(role)))}

    def label_settings(self, role: str) -> dict[str, Any]:
        """The same for a result that uses the role's labels."""
        table = self.table(role)
        return {
            "label_space": list(self.space.names),
            "label_ids": digest({int(i): int(table[i]) for i in np.flatnonzero(table != 255)}),
        }


def digest(content: Any) -> str:
    """A short hash of JSON-like content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
