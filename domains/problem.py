"""The adaptation problem that a configuration states: labelled source, unlabelled target, perhaps a
few labelled images of the target, and labelled validation images that only measure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bdl.domains.cache import CACHE, ImageCache, make_cache
from bdl.domains.datasets import (
    Layout,
    Sample,
    find_samples,
    images_of,
    layout_of,
    spread,
)
from bdl.domains.images import UPRIGHT, check_image
from bdl.domains.index import Index, index_in
from bdl.domains.inspection import (
    Inspection,
    inspect_domain,
    inspect_samples,
    same_frame,
    usable_samples,
)
from bdl.domains.label_space import (
    IGNORE,
    LabelSpace,
    is_by_color,
    load_label_space,
    stored_as_text,
)
from bdl.domains.overlap import about_shared
from bdl.domains.streets.stages import RenderedStreets
from bdl.domains.views import View
from bdl.runtime.config import DataConfig, DomainConfig
from bdl.runtime.console import Console
from bdl.runtime.errors import UserError
from bdl.runtime.ownership import RUN

if TYPE_CHECKING:
    from bdl.domains.loading import TrainingSamples, WholeImages

ROLES = ("source", "target", "target_labelled", "validation")
_FOLLOWED = 4  # samples of each role that reports show
_RENDERED_SIZE = (192, 96)  # width and height of streets that no size is given for


@dataclass(frozen=True)
class Classes:
    """The classes that a network tells apart; what they are called changes no result.

    Args:
        count: Their number.
        space: Their names and colours.
    """

    count: int
    space: LabelSpace = field(compare=False, repr=False)

    @classmethod
    def of(cls, space: LabelSpace) -> Classes:
        return cls(space.num_classes, space)


@dataclass(frozen=True)
class Labels:
    """Label maps, as a setting of what learns from them or is scored on them.

    Args:
        ids: Digest of the ids in the files and the train ids that they stand for.
        files: Digest of the files; None where a stage renders them.
        table: From ids in the files to train ids.
    """

    ids: str
    files: str | None
    table: np.ndarray = field(compare=False, repr=False)


@dataclass(frozen=True)
class ImageSet:
    """The images of one role, as a setting of what uses them.

    Args:
        size: Width and height that they are resized to; None: as stored.
        files: Digest of the files; None where a stage renders them.
        rendered: That stage.
        labels: Their label maps, where these are used.
        orientation: How the files are read, "upright" or "stored".
        count: Number of images, known before they are rendered, too.
        role: "source", "target", "target_labelled" or "validation".
        find: Gives the samples, with labels; of rendered images once they are there.
        hashes: Gives the hashes of the images' contents, likewise.
        cache: Keeps decoded images.
        width: In place of `size`, the width that they are resized to, each keeping its shape.
    """

    size: tuple[int, int] | None
    files: str | None
    rendered: RenderedStreets | None
    labels: Labels | None
    orientation: str
    count: int = field(compare=False)
    role: str = field(compare=False)
    find: Callable[[], list[Sample]] = field(compare=False, repr=False)
    hashes: Callable[[], list[str]] = field(compare=False, repr=False)
    cache: ImageCache | None = field(compare=False, repr=False, default=None)
    width: int | None = field(default=None, metadata={"optional": True})

    def without_labels(self) -> ImageSet:
        """The images alone."""
        return replace(self, labels=None)

    def samples(self) -> list[Sample]:
        """The samples, in their order; without label maps where `labels` is None."""
        if self.labels is not None:
            return self.find()
        return [Sample(sample.name, sample.image, None) for sample in self.find()]

    def names(self) -> list[str]:
        """The samples' names, of rendered images before they are there, too."""
        if self.rendered is not None:
            return [f"{number:05d}" for number in range(self.count)]
        return [sample.name for sample in self.find()]

    def first_size(self) -> tuple[int, int]:
        """Width and height at which the first image is used, known before it is rendered, too."""
        if self.rendered is not None:
            stored = self.rendered.size
        else:
            stored = check_image(self.find()[0].image, self.orientation)
        return View(size=self.size, width=self.width).full_size(stored)

    def stored_sizes(self) -> list[tuple[int, int]]:
        """Width and height of the images as stored, each once; of rendered ones as they will be."""
        if self.rendered is not None:
            return [self.rendered.size]
        return sorted({check_image(one.image, self.orientation) for one in self.find()})

    def followed(self) -> list[int]:
        """Indices of a few samples, spread evenly, that reports follow through the loop."""
        return followed(self.count)

    def training(self, samples: list[Sample], view: View, seed: int) -> TrainingSamples:
        """`samples` of this role as a training sees them. Label maps other than the role's own
        hold train ids."""
        from bdl.domains.loading import TrainingSamples

        table = self.labels.table if self.labels is not None else None
        return TrainingSamples(samples, view, seed, self.role, table, self.cache, self.orientation)

    def whole(
        self, samples: list[Sample] | None = None, scales: Sequence[float] = (1.0,)
    ) -> WholeImages:
        """`samples` of this role (default: its own), uncut, at so many times its size."""
        from bdl.domains.loading import WholeImages

        table = self.labels.table if self.labels is not None else None
        samples = self.samples() if samples is None else samples
        return WholeImages(
            samples, self.size, table, self.cache, self.orientation, self.width, scales
        )


class Problem:
    """The data sets of a configuration, by role.

    Rendered streets without a root lie in `folder`/data/ROLE; they are files only once their
    stage has run, and what depends on them is known by their settings. All other files are looked
    at once, before anything uses them; what was found is kept in the cache's folder, or the run's.

    Args:
        config: The configuration's section.
        folder: The run's folder.
        console: Shows how far looking at files has come.
        limit: Each data set is cut off after so many samples.
        index: What is known of files; None: what a run that writes nothing knows.
    """

    def __init__(
        self,
        config: DataConfig,
        folder: Path,
        console: Console | None = None,
        limit: int | None = None,
        index: Index | None = None,
    ) -> None:
        self.config = config
        self.limit = limit
        self.folder = folder
        self.console = console
        self.space = load_label_space(config.label_space)
        self.classes = Classes.of(self.space)
        self._samples: dict[str, list[Sample]] = {}
        self._inspected: dict[tuple[str, bool], Inspection] = {}
        self.index = index or index_of(config, folder, console)
        for role in self.roles:
            layout_of(self.domain(role), f"data.{role}")
            if role != "target":  # whose labels are never opened
                self._require_encoding(role)

    @property
    def roles(self) -> list[str]:
        """The roles that have images."""
        return [role for role in ROLES if getattr(self.config, role) is not None]

    @cached_property
    def source(self) -> ImageSet:
        """Labelled images to learn from."""
        return self._image_set("source")

    @cached_property
    def target(self) -> ImageSet:
        """Images to adapt to. Their labels are never opened, even where they lie beside them."""
        return self._image_set("target")

    @cached_property
    def target_labelled(self) -> ImageSet | None:
        """A few labelled images like the target's; None where there are none.

        Raises:
            UserError: One of them is a validation image, too.
        """
        if "target_labelled" not in self.roles:
            return None
        self._require_no_leaks()
        return self._image_set("target_labelled")

    def _require_no_leaks(self) -> None:
        for problem in self.leaks():
            raise UserError(problem)

    def _found(self, role: str) -> list[Sample]:
        """The role's samples, when they are used: what is rendered is there by then."""
        if role == "target_labelled" and "validation" in self.roles:
            self._require_no_leaks()
        return self.samples(role)

    def leaks(self) -> list[str]:
        """A line for each labelled image of the target that is a validation image, too, by what
        they show, however their files are packed: what measures must not teach."""
        if not {"target_labelled", "validation"} <= set(self.roles):
            return []
        if self.is_rendered("target_labelled"):
            return []  # other scenes
        labelled = [sample.image for sample in self.samples("target_labelled")]
        if self.is_rendered("validation"):  # perhaps not yet: they are looked at again when used
            measuring = sorted(Path(str(self.domain("validation").root)).glob("images/*"))
        else:
            measuring = [sample.image for sample in self.samples("validation")]
        by_content = dict(
            zip(self.index.pictures(measuring, "data.validation"), measuring, strict=True)
        )
        hashes = self.index.pictures(labelled, "data.target_labelled")
        return [
            f"{file}: an image of data.target_labelled is the validation image "
            f"{by_content[content]}, which may only measure; take it out of one of the two"
            for file, content in zip(labelled, hashes, strict=True)
            if content in by_content
        ]

    def overlaps(self) -> list[str]:
        """A line for each of source and target that has validation images among its own, by the
        contents of their files.

        Raises:
            UserError: A role's images cannot be used.
        """
        there = [role for role in self.roles if not self.is_rendered(role)]
        if "validation" not in there:
            return []
        files = {role: [sample.image for sample in self.samples(role)] for role in there}
        return [
            line
            for role in ("source", "target")
            if role in there
            for line in about_shared(
                f"data.{role}", role, files["validation"], files[role], self.index
            )
        ]

    @cached_property
    def validation(self) -> ImageSet | None:
        """Labelled images that only measure; None where nothing is measured."""
        return self._image_set("validation") if "validation" in self.roles else None

    def _image_set(self, role: str) -> ImageSet:
        rendered = self.rendered(role)
        labelled = role != "target"
        samples = [] if rendered else self.samples(role)
        labels = None
        if labelled:
            files = None if rendered else self.index.digest_of_labels(samples, f"data.{role}")
            table = self.table(role)
            ids = digest(
                {
                    stored_as_text(int(i), is_by_color(table)): int(table[i])
                    for i in np.flatnonzero(table != IGNORE)
                }
            )
            labels = Labels(ids, files, table)
        return ImageSet(
            size=self.size(role),
            files=None if rendered else self.index.digest_of_images(samples, f"data.{role}"),
            rendered=rendered,
            labels=labels,
            orientation=UPRIGHT if rendered else self.inspect(role).orientation,
            count=rendered.scenes if rendered else len(samples),
            role=role,
            find=lambda: self._found(role),
            hashes=lambda: self.index.hashes(
                [sample.image for sample in self.samples(role)], f"data.{role}"
            ),
            cache=self.cache,
            width=self.width(role),
        )

    @cached_property
    def cache(self) -> ImageCache | None:
        """Keeps decoded images, if the configuration asks for it."""
        return make_cache(self.config)

    def rendered(self, role: str) -> RenderedStreets | None:
        """The stage that renders the role's images; None where they are files already."""
        if not self.is_rendered(role):
            return None
        domain = self.domain(role)
        return RenderedStreets(
            role=role,
            scenes=min(domain.scenes, self.limit or domain.scenes),
            size=self.size(role) or _RENDERED_SIZE,
            appearance=domain.appearance,
        )

    def domain(self, role: str) -> DomainConfig:
        """The role's section; rendered streets with their folder filled in."""
        domain: DomainConfig | None = getattr(self.config, role)
        if domain is None:
            raise UserError(f"data.{role}: is not set, and is needed here")
        if self.is_rendered(role):
            return DomainConfig(**{**vars(domain), "root": str(self.folder / "data" / role)})
        return domain

    def is_rendered(self, role: str) -> bool:
        """Whether the run renders the role's images itself."""
        domain: DomainConfig | None = getattr(self.config, role)
        return domain is not None and domain.layout == "streets" and domain.root is None

    def samples(self, role: str) -> list[Sample]:
        """The role's usable samples, each looked at once; the target's without labels.

        Raises:
            UserError: A sample cannot be used, and is not to be left out.
        """
        if role not in self._samples:
            domain, key = self.domain(role), f"data.{role}"
            if self.is_rendered(role):
                samples = find_samples(domain, key, labelled=role != "target")[: self.limit]
            else:
                samples = usable_samples(self.inspect(role), domain.on_error, key)
            self._samples[role] = samples
        return self._samples[role]

    def inspect(self, role: str, pixels: bool = False) -> Inspection:
        """What of the role's files may be used, each looked at once.

        Args:
            role: "source", "target", "target_labelled" or "validation".
            pixels: Whether all files are decoded.

        Raises:
            UserError: The data set as a whole cannot be used.
        """
        if (role, pixels) not in self._inspected:
            self._inspected[role, pixels] = inspect_domain(
                self.domain(role),
                f"data.{role}",
                role != "target",
                self.index,
                pixels,
                self.limit,
                self.is_by_color(role),
            )
        return self._inspected[role, pixels]

    def translations(self, folder: Path) -> tuple[dict[str, Path], Inspection]:
        """The source's images, translated elsewhere.

        Args:
            folder: That of `translation.images`.

        Returns:
            Their files by the names of the source's images, and which of them may be used: those
            of the shape of their source image, or of the size that the source is used at.

        Raises:
            UserError: Source images have no translation.
        """
        key = "translation.images"
        # Of rendered images the names are known before they are there.
        names = self.source.names()
        files = images_of([Sample(name, Path(name), None) for name in names], folder, key)
        samples = [Sample(name, files[name], None) for name in names]
        told = inspect_samples(samples, self.index, key, inside=True)
        if self.source.rendered is not None:
            originals = {name: (name, self.source.rendered.size) for name in names}
        else:
            source = self.inspect("source")
            originals = {
                sample.name: (str(sample.image), size)
                for sample, size in zip(source.samples, source.sizes, strict=True)
            }
        usable, sizes, flaws = [], [], list(told.flaws)
        for sample, size in zip(told.samples, told.sizes, strict=True):
            original, stored = originals[sample.name]
            if same_frame(stored, size) or size == self.size("source"):
                usable.append(sample)
                sizes.append(size)
                continue
            flaws.append(
                f"{sample.image}: is {size[0]}x{size[1]}, the source image {original} "
                f"{stored[0]}x{stored[1]}; a translation must show the same frame, neither cut nor "
                "turned"
            )
        return files, replace(told, samples=usable, sizes=sizes, flaws=flaws)

    def size(self, role: str) -> tuple[int, int] | None:
        """Width and height at which the role's images are used; None: as stored."""
        size = self._sized(role).size
        return (size[0], size[1]) if size else None

    def width(self, role: str) -> int | None:
        """The width at which the role's images are used, in the place of a size."""
        return self._sized(role).width

    def _sized(self, role: str) -> DomainConfig:
        """The section that says how large the role's images are."""
        return self.domain("target" if role == "target_labelled" else role)

    def view(self, role: str) -> View:
        """How the role's images are resized."""
        return View(size=self.size(role), width=self.width(role))

    def layout(self, role: str) -> Layout:
        """Where the role's files are, and how its labels count classes."""
        return layout_of(self.domain(role), f"data.{role}")

    def table(self, role: str) -> np.ndarray:
        """From the ids in the role's label files to train ids."""
        return self.space.table(self.layout(role).encoding)

    def is_by_color(self, role: str) -> bool:
        """Whether the role's label files show classes by colours."""
        return self.layout(role).encoding in self.space.by_color

    def _require_encoding(self, role: str) -> None:
        encoding = self.layout(role).encoding
        if encoding not in self.space.encodings:
            raise UserError(
                f"data.{role}.encoding: '{encoding}' is not in the label space "
                f"'{self.space.name}', which has {', '.join(self.space.encodings)}; set "
                f"data.{role}.encoding, or data.{role}.layout if the files are not of that layout"
            )


def index_of(
    config: DataConfig, folder: Path, console: Console | None = None, writing: bool = False
) -> Index:
    """What is known of files, kept in the cache's folder, or in a run's.

    Args:
        config: The configuration's section.
        folder: The run's folder.
        console: Shows progress.
        writing: Whether the folder is made if it is not there.
    """
    if config.cache is not None:
        return index_in(Path(config.cache), console, CACHE if writing else None)
    return index_in(folder, console, RUN if writing else None)


def followed(count: int) -> list[int]:
    """Indices of those of `count` samples that reports follow, spread evenly."""
    return spread(count, _FOLLOWED)


def digest(content: Any) -> str:
    """A short hash of JSON-like content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
