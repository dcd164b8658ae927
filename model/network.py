"""What every network has in common: towers, a head, and the ways in for pixels and token ids.

Letters: T texts, V segments, B pairs of a batch, W words, F frame slots, D embedding width, P width of what is
recalled, S image side. Raw tensors in and out; training, evaluation and serving all go through these verbs. A network
knows no file, no index and no optimiser. The kinds of networks, which declare themselves, are in families/.

`masks` is how padding is read. "masked": it takes no part. "reference": exactly what the papers' code computes, where
X-CLIP lets padded words and frames into its softmaxes and CLIP2Video swaps masks between segments: for parity and for
the papers' own protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model.checked import BadValue, checked
from model.errors import ShapeError, UnknownScorer
from model.kernels.aosm_reference import TEMPERATURE, Mixing
from model.kernels.panel import Panel
from model.losses import symmetric_cross_entropy
from model.panels import panel_of
from model.shared_scorers import SHARED_SCORERS, Cost, ScorerInfo, frame_relevance, parts_of, shared_score
from model.temporal import TemporalConfig, TemporalEncoder, TemporalKind, build_temporal
from model.types import HeadKind, Query, ScorerName, Scores, TextFeatures, VideoFeatures

if TYPE_CHECKING:
    from model.backbone import Backbone

FRAMES_PER_BATCH = 256
"""Frames through the image tower at once; bounds memory, not results."""

MaskReading = Literal["masked", "reference"]
FORMER_MASKS: Mapping[str, MaskReading] = {"served": "masked", "official": "reference"}
"""What the readings were called in files that are still read."""

FrameChoice = Literal["clip4clip", "clip2video"]


@dataclass(frozen=True)
class NetworkConfig:
    """What a network is built from; a model folder's config.json holds the same."""

    kind: HeadKind
    """Which of the families."""

    num_words: int
    """W."""

    num_frames: int
    """F."""

    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    """The temporal encoder; for kinds that have none of their own always the default."""

    head: Any = None
    """The switches of the kind's head, an instance of its `switches`; None for their defaults."""

    masks: MaskReading = "masked"
    """How padding was read in training; serving always masks it."""

    model_cfg: dict[str, Any] = field(default_factory=dict)
    """The towers in open_clip's format; empty where they are given as they are."""

    preprocess: dict[str, Any] = field(default_factory=dict)
    """`Preprocess.as_dict()`; empty for the default of the towers."""


class Network(nn.Module, ABC):
    """A kind of network: its class variables and class methods declare all that other files need to know about it."""

    kind: ClassVar[HeadKind]
    """Its name in configurations, answers and presets."""

    scorers: ClassVar[tuple[ScorerName, ...]]
    """What this network's features can be scored by; the first is what it was trained for."""

    own_scorer: ClassVar[ScorerInfo | None] = None
    """The scorer that only this kind has."""

    similarity_cost: ClassVar[Cost] = "pair"
    """What `similarity` holds at its peak."""

    switches: ClassVar[type[Any] | None] = None
    """The frozen dataclass of its head's switches; None for a head without any."""

    temporal_kinds: ClassVar[tuple[TemporalKind, ...]] = ()
    """The temporal encoders it can be built with; empty where the head itself puts frames in order."""

    has_fixed_sizes: ClassVar[bool] = False
    """Whether its weights fix W and F, so that a state dict tells them."""

    has_frame_recall: ClassVar[bool] = True
    """Whether frames are unit vectors that a sentence can recall."""

    frame_choice: ClassVar[FrameChoice] = "clip4clip"
    """Whose choice of a video's frames the papers evaluate it with."""

    tensor_names: ClassVar[str] = ""
    """A regular expression of the official names of its own tensors, beyond those of temporal encoders; {block} stands
    for the names within a transformer block."""

    optional_tensors: ClassVar[frozenset[str]] = frozenset()
    """Official names that a file may lack, all together."""

    def __init__(self, backbone: Backbone, config: NetworkConfig, num_positions: int | None = None) -> None:
        """num_positions: rows of the temporal encoder's table; None for the context length, or F if that is more.

        Raises: BadValue for another kind's switches.
        """
        super().__init__()
        self.backbone = backbone
        self._config = self.settled(config, backbone.embed_dim)
        self._num_positions = num_positions or max(backbone.context_length, config.num_frames)

    # ---- what a kind declares

    @classmethod
    @abstractmethod
    def is_in(cls, state: Mapping[str, Any]) -> bool:
        """Whether the official names of a state dict are this kind's; asked in the order of families.FAMILIES."""

    @classmethod
    def described(cls, state: Mapping[str, Tensor], config: NetworkConfig) -> NetworkConfig:
        """`config`, with the head, W and F that an official state dict of this kind shows."""
        return config

    @classmethod
    def read_switches(cls, values: Mapping[str, Any], where: str, width: int, context_length: int | None = None) -> Any:
        """The head's switches from plain values. width: D. `where` begins the messages.

        context_length: given in training, where positions come from the text tower and values may not set them.
        Raises: BadValue.
        """
        if cls.switches is None:
            if values:
                raise BadValue(f"{where} has the key {next(iter(values))!r}, and {cls.kind}'s head has none.")
            return None
        own = cls._set_by_the_towers(width, context_length)
        return checked(cls.switches, values, where, leave_out=frozenset(own), **own)

    @classmethod
    def _set_by_the_towers(cls, width: int, context_length: int | None) -> dict[str, Any]:
        """Fields of `switches` that values can't set."""
        has_positions = cls.switches is not None and any(part.name == "num_positions" for part in fields(cls.switches))
        return {"num_positions": context_length} if has_positions and context_length is not None else {}

    @classmethod
    def head_values(cls, switches: Any) -> dict[str, Any]:
        """The switches as plain JSON values, which `read_switches` reads back."""
        return {} if switches is None else asdict(switches)

    @classmethod
    def hashed_head(cls, switches: Any) -> dict[str, Any] | None:
        """What the fingerprint counts of the head, None for nothing. Stored features are bound to it: it may not change
        for switches that exist, whatever they are called now."""
        return {"kind": cls.kind, **cls.head_values(switches)}

    @classmethod
    def settled(cls, config: NetworkConfig, width: int) -> NetworkConfig:
        """The configuration with all that building settles. Raises: BadValue for another kind's switches."""
        head = config.head
        if cls.switches is not None and head is None:
            head = cls.read_switches({}, "the head", width)
        if head is not None and (cls.switches is None or not isinstance(head, cls.switches)):
            raise BadValue(f"{type(head).__name__} isn't a configuration of {cls.kind}'s head.")
        temporal = config.temporal.settled(width) if cls.temporal_kinds else TemporalConfig()
        return replace(config, kind=cls.kind, temporal=temporal, head=head)

    @classmethod
    def temporal_name(cls, config: NetworkConfig) -> str:
        """What becomes of the frames before they are pooled, in a word."""
        return config.temporal.kind

    @classmethod
    def positions_needed(cls, config: NetworkConfig) -> int:
        """How many learnt positions F frame slots take; 0 where any number will do."""
        return config.num_frames if config.temporal.is_transformer else 0

    def built_temporal(self) -> TemporalEncoder:
        """The temporal encoder of the configuration, weights still random."""
        chosen, width = self._config.temporal, self.backbone.embed_dim
        return build_temporal(
            chosen.kind, width, layers=chosen.layers, heads=chosen.heads, num_positions=self._num_positions
        )

    # ---- its configuration

    @property
    def config(self) -> NetworkConfig:
        """What builds a network of this shape again."""
        backbone = self.backbone
        return replace(self._config, model_cfg=backbone.model_cfg, preprocess=backbone.preprocess.as_dict())

    @property
    def num_words(self) -> int:
        """W."""
        return self._config.num_words

    @property
    def num_frames(self) -> int:
        """F."""
        return self._config.num_frames

    @property
    def masks(self) -> MaskReading:
        """How padding is read."""
        return self._config.masks

    @property
    def most_frames(self) -> int | None:
        """The largest F that the learnt positions allow; None without any."""
        return None

    def can_have(self, *, num_words: int | None = None, num_frames: int | None = None) -> bool:
        """Whether the weights allow this W and F."""
        return num_frames is None or num_frames <= (self.most_frames or num_frames)

    def reconfigure(
        self, *, num_words: int | None = None, num_frames: int | None = None, masks: MaskReading | None = None
    ) -> None:
        """Take another W, F or reading of masks; None for the present one. Raises: ShapeError unless `can_have`."""
        if not self.can_have(num_words=num_words, num_frames=num_frames):
            raise ShapeError(f"the weights of this {self.kind} don't allow W={num_words} and F={num_frames}")
        config = self._config
        self._config = replace(
            config,
            num_words=num_words or config.num_words,
            num_frames=num_frames or config.num_frames,
            masks=masks or config.masks,
        )

    @property
    def pooled_dim(self) -> int:
        """P."""
        return self.backbone.embed_dim

    @property
    def is_towers_only(self) -> bool:
        """Whether nothing but the towers was ever learnt."""
        return all(name.startswith("backbone.") for name in self.state_dict())

    # ---- from pixels and ids to features

    def raw_frames(self, pixels_VFCSS: Tensor, mask_VF: Tensor) -> Tensor:
        """Pixels through the image tower all at once, as training does it -> (V, F, D) float32, not normalised.

        Padding is encoded only where masks are the reference's, and then once: zeros after normalisation.
        """
        return self.in_slots(self.backbone.encode_frames(pixels_VFCSS[mask_VF]).float(), mask_VF)

    def encode_frames(self, frames_NSSC: Tensor) -> Tensor:
        """Frames of the tower's size, (N, S, S, 3) uint8 on any device, FRAMES_PER_BATCH at once -> (N, D) float32."""
        device, normalise = self.backbone.logit_scale.device, self.backbone.preprocess.normalise
        batches = torch.split(frames_NSSC, FRAMES_PER_BATCH)
        return torch.cat([self.backbone.encode_frames(normalise(batch.to(device))).float() for batch in batches])

    def in_slots(self, raw_ND: Tensor, mask_VF: Tensor) -> Tensor:
        """Encoded real frames in the order of the mask's True entries -> (V, F, D), padded slots as `padded_frame`."""
        padded_VFD = self.padded_frame().expand(*mask_VF.shape, -1)
        return padded_VFD.masked_scatter(mask_VF[..., None], raw_ND)

    def padded_frame(self) -> Tensor:
        """(D,) float32: the raw embedding of a padded slot: zeros, or in the reference reading that of grey pixels."""
        device = self.backbone.logit_scale.device
        if self.masks == "masked":
            return torch.zeros(self.backbone.embed_dim, device=device)
        size = self.backbone.image_size
        return self.backbone.encode_frames(torch.zeros(1, 3, size, size, device=device)).float()[0]

    def raw_text(self, ids_TW: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (T, W) -> sentence (T, D) and words (T, W, D), float32, not normalised."""
        sentence, words = self.backbone.encode_words(ids_TW)
        return sentence.float(), words.float()

    def word_mask(self, ids_TW: Tensor, mask_TW: Tensor) -> Tensor:
        """A tokenizer's mask (True on start..end) as this network reads it: masked, the start token takes no part.

        It holds nothing of its sentence; tokenizers without one keep their first word. Shapes: (T, W) -> (T, W).
        """
        start_id = self.backbone.tokenizer.start_id
        return mask_TW if self.masks == "reference" or start_id is None else mask_TW & (ids_TW != start_id)

    def video(self, pixels_VFCSS: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """(V, F, 3, S, S) normalised pixels, mask (V, F) bool -> features."""
        return self.video_from_frames(self.raw_frames(pixels_VFCSS, mask_VF), mask_VF)

    def text(self, ids_TW: Tensor, mask_TW: Tensor) -> TextFeatures:
        """Token ids and the tokenizer's mask (T, W) -> features."""
        return self.text_from_words(*self.raw_text(ids_TW), self.word_mask(ids_TW, mask_TW))

    def text_from_words(self, sentence_TD: Tensor, words_TWD: Tensor, mask_TW: Tensor) -> TextFeatures:
        """Raw sentence and words -> what is compared: here both normalised."""
        return TextFeatures(normalize(sentence_TD, dim=-1), normalize(words_TWD, dim=-1), mask_TW)

    @abstractmethod
    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Raw frames (V, F, D), mask (V, F) bool -> what is stored and compared."""

    # ---- scores and loss

    @abstractmethod
    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """(T, V) float32: what ranks in the paper's evaluation and in its loss, no logit scale; reads `masks`."""

    @property
    def scale(self) -> Tensor:
        """exp(logit_scale), a scalar."""
        return self.backbone.logit_scale.exp()

    def loss(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """The paper's loss of a batch in which text b belongs to segment b, logit scale inside -> scalar."""
        return symmetric_cross_entropy(self.scale * self.similarity(texts, videos))

    @property
    def starts_from_text_tower(self) -> bool:
        """Whether `start_from_clip` takes anything; towers of another width then matter."""
        return self.config.temporal.is_transformer

    def start_from_clip(self) -> None:
        """Start what the official code starts from CLIP's own weights; the rest stays random."""

    def mixing(self) -> Mixing:
        """The learnt matrices of the shared scorers; the identity for every kind but X-CLIP."""
        return Mixing()

    @property
    def temperature(self) -> float | Tensor:
        """AOSM's, dimensionless."""
        return TEMPERATURE

    def recall_vectors(self, query: Query) -> Tensor:
        """(Q, P) float32: see VideoTextModel.recall_vectors."""
        return query.pooled.float() if isinstance(query, VideoFeatures) else self._sentence_vectors(query)

    def _sentence_vectors(self, query: TextFeatures) -> Tensor:
        return normalize(query.sentence.float(), dim=-1)

    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        """Scores by one of `scorers`, padding masked. For a clip its frames stand in for the words, unmixed.

        Raises: UnknownScorer.
        """
        name = self.checked_scorer(scorer)
        if name in SHARED_SCORERS:
            return shared_score(name, parts_of(query, videos), self._mixing_for(query), self.temperature)
        return self._own_score(query, videos)

    def panel(self, query: Query, scorer: ScorerName | None = None) -> Panel | None:
        """What a kernel scores a query by, as `score` does; None for `own_scorer`. Raises: UnknownScorer."""
        name = self.checked_scorer(scorer)
        if name not in SHARED_SCORERS:
            return None
        mixing, has_unit_frames = self._mixing_for(query), self.has_frame_recall
        return panel_of(query, name, mixing, self.temperature, has_unit_frames=has_unit_frames)

    def frame_relevance(self, query: Query, videos: VideoFeatures) -> Tensor:
        """(Q, V, F): how much each frame supports the query, whatever scorer ranks; -inf in padding."""
        return frame_relevance(parts_of(query, videos))

    def checked_scorer(self, scorer: ScorerName | None) -> ScorerName:
        """The scorer asked for, or the first. Raises: UnknownScorer."""
        name = scorer or self.scorers[0]
        if name not in self.scorers:
            raise UnknownScorer(
                f"the scorer {name!r} doesn't work on features of {self.kind}.", f"Use {', '.join(self.scorers)}."
            )
        return name

    def _mixing_for(self, query: Query) -> Mixing:
        return Mixing() if isinstance(query, VideoFeatures) else self.mixing()

    def _own_score(self, query: Query, videos: VideoFeatures) -> Scores:
        """By `own_scorer`."""
        raise NotImplementedError(f"{self.kind} has no scorer of its own")


def mask_reading(name: str) -> MaskReading:
    """The reading of a stored or typed name, former names included. Raises: BadValue."""
    reading = FORMER_MASKS.get(name, name)
    for known in get_args(MaskReading):
        if reading == known:
            found: MaskReading = known
            return found
    raise BadValue(f"masks are {name!r}; {' or '.join(get_args(MaskReading))} is needed.")
