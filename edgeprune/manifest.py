"""The bundle manifest as frozen dataclasses, schema version 1 (docs/manifest.schema.json).

`parse` reads a decoded JSON object strictly: every field present, no unknown field, every value in its range, and the
parts consistent with each other. The field comments of the JSON schema say what each value means.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeprune.errors import BundleError
from edgeprune.strict_json import read_dataclass, require

SCHEMA_VERSION = 1
#: in a vision graph, names of the nodes that are the pruner's work begin so.
PRUNING_PREFIX = "pruning/"
#: the tokenizer of a text encoder, in a bundle.
TEXT_TOKENIZER = "text-tokenizer/tokenizer.json"
_PATH = re.compile(r"[A-Za-z0-9._/-]+")


@dataclass(frozen=True)
class Source:
    id: str
    revision: str | None
    sha256: str | None
    random_weights: bool


@dataclass(frozen=True)
class Auto:
    """K is the least that holds `mass` of the scores' sum, between two keep ratios."""

    mass: float
    min: float
    max: float

    def __post_init__(self) -> None:
        require(
            0 < self.mass <= 1 and 0 < self.min <= self.max <= 1, "keep.auto needs 0 < min <= max <= 1, 0 < mass <= 1"
        )


@dataclass(frozen=True)
class Keep:
    """Keep ratios K/N: the default and the bounds of a request; `auto`: used where a request names none."""

    default: float
    min: float
    max: float
    auto: Auto | None = None

    def __post_init__(self) -> None:
        bound = self.auto is None or self.min <= self.auto.min <= self.auto.max <= self.max
        require(bound, "keep.auto lies outside keep.min to keep.max")
        require(0 < self.min <= self.default <= self.max <= 1, "keep needs 0 < min <= default <= max <= 1")


@dataclass(frozen=True)
class CountRun:
    """The counts first, first + step, ... last."""

    first: int
    last: int
    step: int

    def __post_init__(self) -> None:
        require(1 <= self.first <= self.last and self.step >= 1, "a run of counts needs 1 <= first <= last, step >= 1")
        require((self.last - self.first) % self.step == 0, "the last of a run of counts must be one of its steps")


@dataclass(frozen=True)
class Method:
    name: str
    spec: str
    parameters: dict[str, Any]
    stages: tuple[str, ...]
    where: Literal["before_encoder", "in_encoder", "before_projector", "after_projector", "in_decoder", "nowhere"]
    scope: Literal["view", "image"]
    text: bool
    dynamic_keep: bool
    static_keep: int | None
    has_scores: bool
    keep_counts: tuple[CountRun, ...] | None = None
    text_encoder: bool | None = None

    def __post_init__(self) -> None:
        require(self.text or not self.text_encoder, "text_encoder needs text")
        require(self.keep_counts is None or self.keep_counts, "keep_counts must not be empty")


@dataclass(frozen=True)
class Methods:
    default: str
    each: dict[str, Method]

    def __post_init__(self) -> None:
        require(self.default in self.each, f"the default method {self.default!r} is not among methods.each")


@dataclass(frozen=True)
class Padding:
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Resize:
    """size_px: (edge,) for shortest_edge, (height, width) for exact."""

    mode: Literal["shortest_edge", "exact"]
    size_px: tuple[int, ...]
    resample: Literal["bicubic", "bilinear", "lanczos"]

    def __post_init__(self) -> None:
        count = 1 if self.mode == "shortest_edge" else 2
        require(len(self.size_px) == count and min(self.size_px) >= 1, f"size_px of {self.mode} needs {count} size(s)")


@dataclass(frozen=True)
class PadMask:
    """The vision graphs read which patches of patch_px x patch_px are letter-box padding by more than half."""

    patch_px: int

    def __post_init__(self) -> None:
        require(self.patch_px >= 1, "patch_px must be positive")


@dataclass(frozen=True)
class Preprocess:
    kind: Literal["square"]
    pad_square: Padding | None
    resize: Resize
    center_crop_px: tuple[int, int] | None
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    folded: bool
    pad_mask: PadMask | None = None

    def __post_init__(self) -> None:
        require(self.pad_mask is None or self.pad_square is not None, "pad_mask needs pad_square")
        require(min(self.center_crop_px or (1, 1)) >= 1, "center_crop_px must be positive")


@dataclass(frozen=True)
class ImageSegment:
    before: str
    after: str


@dataclass(frozen=True)
class Segment:
    """Exactly one of: literal text, once per picture, the user's question."""

    text: str | None = None
    images: ImageSegment | None = None
    question: Literal[True] | None = None

    def __post_init__(self) -> None:
        kinds = sum(part is not None for part in (self.text, self.images, self.question))
        require(kinds == 1, "a prompt segment holds exactly one of text, images and question")


@dataclass(frozen=True)
class Prompt:
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Tokens:
    image_marker: str
    image: int
    eos: tuple[int, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    stop: tuple[str, ...]

    def __post_init__(self) -> None:
        require(min((self.image, *self.eos, *self.prefix, *self.suffix)) >= 0, "token ids must not be negative")


@dataclass(frozen=True)
class TextEncoder:
    """How a question becomes the ids of `graphs.text`: prefix, text, suffix, cut into rows of segment_tokens."""

    id: str
    sha256: str | None
    segment_tokens: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    def __post_init__(self) -> None:
        require(self.segment_tokens >= 1, "segment_tokens must be positive")
        require(min((0, *self.prefix, *self.suffix)) >= 0, "token ids must not be negative")


@dataclass(frozen=True)
class Tensor:
    role: str
    name: str
    dtype: Literal["float32", "float16", "int64", "int32"]
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class KvSpec:
    kind: Literal["growing", "fixed"]
    layers: int
    heads: int
    head_dim: int
    dtype: Literal["float32", "float16"]

    def __post_init__(self) -> None:
        require(min(self.layers, self.heads, self.head_dim) >= 1, "kv sizes must be positive")


@dataclass(frozen=True)
class Graph:
    stage: Literal["vision", "encode", "select", "text", "embedding", "decoder"]
    file: str
    data: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    kv: KvSpec | None = None


@dataclass(frozen=True)
class Graphs:
    """`decoder_step`: where there is one, it makes each next token behind a cache that `decoder` began. `text`: the
    text encoder of the methods that read the question through one."""

    vision: dict[str, tuple[Graph, ...]]
    embedding: Graph
    decoder: Graph
    decoder_step: Graph | None = None
    text: Graph | None = None

    def __post_init__(self) -> None:
        same = self.decoder_step is None or self.decoder_step.kv == self.decoder.kv
        require(same, "graphs.decoder_step and graphs.decoder differ in their kv")

    def __iter__(self) -> typing.Iterator[Graph]:
        for graphs in self.vision.values():
            yield from graphs
        yield from (graph for graph in (self.text, self.embedding, self.decoder) if graph is not None)
        if self.decoder_step is not None:
            yield self.decoder_step


@dataclass(frozen=True)
class FileEntry:
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        require(re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None, f"{self.sha256!r} is not a sha256")
        require(self.bytes >= 0, "a file size must not be negative")


@dataclass(frozen=True)
class Golden:
    """Two file names, or the reason why there are none."""

    inputs: str | None = None
    outputs: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        names = (self.inputs is not None, self.outputs is not None)
        require(names == ((self.reason is None),) * 2, "golden holds inputs and outputs, or a reason")


@dataclass(frozen=True)
class ParityRow:
    stage: str
    measure: str
    value: float
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class Variant:
    """What `edgeprune build` made for one target; without `graphs` it holds engines, which its build.json lists."""

    slug: str
    target: str
    precision: dict[str, str]
    key: str
    build: str
    files: dict[str, FileEntry]
    parity: tuple[ParityRow, ...]
    graphs: Graphs | None = None

    def __post_init__(self) -> None:
        require(re.fullmatch(r"[A-Za-z0-9.-]+", self.slug), f"{self.slug!r} is not a variant slug")
        require(self.build in self.files, f"{self.build} is used but not listed in files")
        for path in self.files:
            require_safe_path(path)
            require(path.startswith(f"variants/{self.slug}/"), f"{path} lies outside variants/{self.slug}/")


@dataclass(frozen=True)
class Manifest:
    schema_version: int
    name: str
    family: str
    source: Source
    recipe: dict[str, Any]
    notes: tuple[str, ...]
    visual_tokens: int
    grid: tuple[int, int]
    keep: Keep
    methods: Methods
    preprocess: Preprocess
    prompt: Prompt
    tokens: Tokens
    positions: Literal["compact", "original", "mrope"]
    context_length: int
    graphs: Graphs
    files: dict[str, FileEntry]
    opset: int
    min_onnxruntime: str
    variants: tuple[Variant, ...]
    golden: Golden
    parity: tuple[ParityRow, ...]
    versions: dict[str, str]
    text_encoder: TextEncoder | None = None

    def __post_init__(self) -> None:
        for name in ("visual_tokens", "context_length", "opset"):
            require(getattr(self, name) >= 1, f"{name} must be positive")
        require(min(self.grid) >= 1, "grid must be positive")
        require(math.prod(self.grid) == self.visual_tokens, "grid and visual_tokens disagree")
        require(re.fullmatch(r"[0-9]+\.[0-9]+", self.min_onnxruntime) is not None, "min_onnxruntime is not A.B")
        for path in self.files:
            require_safe_path(path)
        require(self.text_encoder is None or TEXT_TOKENIZER in self.files, f"{TEXT_TOKENIZER} is not listed in files")
        golden = [path for path in (self.golden.inputs, self.golden.outputs) if path is not None]
        self._require_graph_files(self.graphs, {}, golden)
        require(len({variant.slug for variant in self.variants}) == len(self.variants), "a variant stands twice")
        for variant in self.variants:
            if variant.graphs is not None:
                self._require_graph_files(variant.graphs, variant.files, [])

    def _require_graph_files(self, graphs: Graphs, more: Mapping[str, FileEntry], others: list[str]) -> None:
        require((graphs.text is None) == (self.text_encoder is None), "graphs.text and text_encoder belong together")
        missing = set(self.methods.each) ^ set(graphs.vision)
        require(not missing, f"method {', '.join(sorted(missing))} and graphs.vision do not match")
        for name, method in self.methods.each.items():
            require(method.name == name, f"methods.each.{name} calls itself {method.name!r}")
            require(graphs.text or not method.text_encoder, f"methods.each.{name} needs graphs.text")
            stages = tuple(graph.stage for graph in graphs.vision[name])
            fits = stages == ("encode", "select") or (stages == ("vision",) and not method.text)
            one = "" if method.text else "a graph of the stage vision, or "
            require(fits, f"graphs.vision.{name} must hold {one}one of the stage encode and one of the stage select")
        for path in [path for graph in graphs for path in (graph.file, *graph.data)] + others:
            require_safe_path(path)
            require(path in self.files or path in more, f"{path} is used but not listed in files")


def require_safe_path(path: str) -> None:
    """BundleError unless `path` is relative, stays inside, and is spelled with letters, digits and ._/- only."""
    safe = _PATH.fullmatch(path) and not path.startswith("/") and ".." not in path.split("/")
    require(safe, f"the path {path!r} is not a plain relative path inside the bundle")


def parse(value: object) -> Manifest:
    """A Manifest from a decoded JSON object.

    Raises:
        BundleError: unknown schema version, or the first field that is missing, unknown, of a wrong type or out of
            range; the text names the field and is meant to follow "FILE: ".
    """
    require(isinstance(value, Mapping), "the manifest is not a JSON object")
    version = typing.cast("Mapping[str, object]", value).get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            f"schema_version is {version!r} but this edgeprune reads {SCHEMA_VERSION}; export the bundle again or use "
            "the edgeprune that wrote it"
        )
    return read_dataclass(Manifest, value)
