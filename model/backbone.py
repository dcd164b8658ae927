"""The door to open_clip: any of its models as two towers, frames -> embeddings and token ids -> embeddings per word.

Letters: N frames, T texts, W words, D embedding width, S image side. Embeddings are raw, not normalised.
This is the only file that imports open_clip; it translates that library's failures into ours.
Source: CLIP, arXiv:2103.00020; the per-word projection follows X-CLIP, arXiv:2207.07285, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from model import hub
from model.activation import warn_of_activation
from model.errors import (
    CheckpointMismatch,
    ShapeError,
    TokenizerUnavailable,
    UnknownModel,
    WeightsUnavailable,
    reason_of,
)
from model.importing import import_module
from model.preprocess import Preprocess
from model.text_tower import hidden, pooling_of, projected
from model.tokenizer import BpeTokenizer, Tokenizer, Tokens, TransformersTokenizer, merges_archive, tokenizer_options
from model.types import public_name

# Towers need one norm of torchvision and some layers of timm. Run, these packages import torch's compiler, 1,300 models
# and the hub's client. open_clip itself runs when its lists, its loaders or CoCa are asked for.
_LATE = ("open_clip", "torchvision", "torchvision.models", "torchvision.ops", "timm")
towers = import_module("open_clip.model", late=_LATE)
layers = import_module("open_clip.transformer", late=_LATE)
tokenizers = import_module("open_clip.tokenizer", late=_LATE)
open_clip = import_module("open_clip", late=_LATE)

_DOWNLOADS = Path("~/.cache/clip").expanduser()  # where open_clip puts weights that don't come from the hub
OFFLINE_HINT = (
    "On a machine with internet, download the weights and name the file as ARCH/path/to/weights; "
    "or set VIDGRAIN_MODEL=tiny for the bundled model."
)


class Backbone(nn.Module):
    """Two towers with one embedding space. `clip` is the open_clip module, so state dict names are `clip.` + its own.

    model_cfg: the open_clip configuration it was built from; merges_path: its own merges file, None for CLIP's.
    """

    def __init__(
        self,
        clip: nn.Module,
        model_cfg: dict[str, Any],
        preprocess: Preprocess,
        tokenizer: Tokenizer,
        merges_path: Path | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.model_cfg = model_cfg
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.merges_path = merges_path
        self.embed_dim = int(model_cfg["embed_dim"])
        self.context_length = int(model_cfg["text_cfg"].get("context_length", 77))

    @property
    def image_size(self) -> int:
        """S, in pixels."""
        return self.preprocess.image_size

    @property
    def logit_scale(self) -> Tensor:
        """The natural logarithm of the temperature's inverse, a learnt scalar."""
        scale: Tensor = self._towers.logit_scale
        return scale

    def encode_frames(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) normalised pixels -> (N, D)."""
        embeddings: Tensor = self._towers.encode_image(pixels, normalize=False)
        return embeddings

    def encode_words(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(T, W) token ids -> sentence (T, D) and words (T, W, D), padding included.

        Every position passes the tower's own final norm and projection; the sentence is pooled as the tower does it.
        W may be below the context length: a causal tower then skips the rest, which changes nothing; any other sees
        its own padding up to the full context. Raises: ShapeError if W exceeds the context length.
        """
        num_words = ids.shape[-1]
        if ids.ndim != 2 or num_words > self.context_length:
            raise ShapeError(f"token ids are {tuple(ids.shape)}; (T, W) with W <= {self.context_length} is needed")
        tower = self.text_tower
        if hasattr(tower, "proj"):
            return self._words_of_transformers(tower, self._padded(ids), num_words)
        if getattr(tower, "cls_emb", None) is not None:
            sentence, tokens = tower(self._padded(ids))
            return sentence, projected(tower, tower.ln_final(tokens[:, :num_words]))
        is_sliced = tower.attn_mask is not None and pooling_of(tower) != "last"
        ids = ids if is_sliced else self._padded(ids)
        words = projected(tower, hidden(tower, ids))
        return self.sentence_of(words, ids), words[:, :num_words]

    def sentence_of(self, words: Tensor, ids: Tensor) -> Tensor:
        """Projected tokens (T, n, D) and their ids (T, n) -> (T, D), pooled as the tower does it."""
        tower = self.text_tower
        end_id = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
        pooled: Tensor = layers.text_global_pool(words, ids, pooling_of(tower), eos_token_id=end_id)
        return pooled

    @property
    def ends_text_at_its_last_token(self) -> bool:
        """Whether nothing after a sentence's end token can change its embeddings: a causal tower over CLIP's tokens."""
        tower = self.text_tower
        is_plain = not hasattr(tower, "proj") and getattr(tower, "cls_emb", None) is None
        is_causal = is_plain and tower.attn_mask is not None and pooling_of(tower) in ("argmax", "eos", "first")
        return is_causal and isinstance(self.tokenizer, BpeTokenizer)

    def tokenize(self, texts: Sequence[str], num_words: int) -> Tokens:
        """Sentences -> W tokens each, the start and end tokens included; what does not fit is cut. Thread-safe.

        Raises: ShapeError if W is below 3 or above the context length.
        """
        if not 3 <= num_words <= self.context_length:
            raise ShapeError(f"{num_words} words asked; the text tower takes 3 to {self.context_length}")
        return self.tokenizer(texts, num_words)

    def text_blocks(self) -> tuple[Tensor, list[nn.Module]]:
        """Positions (context length, D) and transformer blocks of the text tower: what heads start from.

        Raises: ShapeError where the tower has none, or is not as wide as the embeddings.
        """
        tower = self.text_tower
        positions = getattr(tower, "positional_embedding", None)
        blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
        if positions is None or blocks is None or positions.shape[-1] != self.embed_dim:
            found = "none" if positions is None else f"{positions.shape[-1]} wide"
            raise ShapeError(
                f"a head starts from text blocks as wide as the embeddings ({self.embed_dim}); they are {found}"
            )
        return positions, list(blocks)

    def visual_projection(self) -> Tensor | None:
        """The image tower's last matrix (width, D), None where it ends otherwise."""
        projection = getattr(self.image_tower, "proj", None)
        return projection if isinstance(projection, Tensor) else None

    def checkpoint_gradients(self) -> None:
        """While training, compute each block of both towers again in the backward pass instead of keeping what it made.

        Memory for time, the same gradients. Transformers can; a ResNet tower keeps all as before.
        """
        self._towers.set_grad_checkpointing(True)

    @property
    def _towers(self) -> Any:
        return self.clip

    @property
    def image_tower(self) -> Any:
        """The open_clip module that sees frames."""
        return self.clip.visual

    def drop_image_tower(self) -> None:
        """Free the image tower's memory where another computes in its place: `encode_frames` can't be used any more."""
        self.clip.visual = nn.Identity()

    @property
    def text_tower(self) -> Any:
        """The open_clip module that reads sentences."""
        return getattr(self.clip, "text", self.clip)

    def _padded(self, ids: Tensor) -> Tensor:
        missing = self.context_length - ids.shape[-1]
        return nn.functional.pad(ids, (0, missing), value=self.tokenizer.pad_id)

    def _words_of_transformers(self, tower: Any, ids: Tensor, num_words: int) -> tuple[Tensor, Tensor]:
        """A text tower of the transformers library gives its tokens unprojected, a class token at the head left out."""
        tower.output_tokens = True
        sentence, tokens = tower(ids)
        words = tower.proj(tokens)
        if words.shape[1] < ids.shape[1]:
            words = torch.cat([sentence[:, None], words], dim=1)
        return sentence, words[:, :num_words]


def architectures() -> list[str]:
    """The names that open_clip can build."""
    return list(open_clip.list_models())


def weight_tags(architecture: str) -> list[str]:
    """The tags of published weights of an architecture."""
    return list(open_clip.list_pretrained_tags_by_model(architecture))


def model_config(architecture: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture's towers."""
    return dict(open_clip.get_model_config(architecture) or {})


def cached_weights() -> list[tuple[str, str]]:
    """(architecture, tag) of published weights that lie in the hub's local cache; fetches nothing."""
    pairs = [(str(architecture), str(tag)) for architecture, tag in open_clip.list_pretrained()]
    return [
        pair
        for pair in pairs
        if hub.cached_file(str(open_clip.get_pretrained_cfg(*pair).get("hf_hub", ""))) is not None
    ]


def build_backbone(
    architecture: str | Mapping[str, Any],
    *,
    weights: Path | str | None = None,
    merges: Path | None = None,
    preprocess: Preprocess | None = None,
    tokenizer_folder: Path | None = None,
) -> Backbone:
    """Build towers, tokenizer and preprocessing; float32 on the CPU, in eval mode.

    architecture: a name of open_clip, or a model configuration of its format. weights: a tag of published weights
    (a str), a file (a Path), or None for random ones. merges: a byte-pair vocabulary of one's own.
    preprocess: overrides the configuration and the weights. tokenizer_folder: where the files of a tokenizer
    of the transformers library lie, if one is asked for; else its name is looked up.
    Raises: UnknownModel, TokenizerUnavailable, WeightsUnavailable, CheckpointMismatch.
    """
    if isinstance(architecture, str):
        found = open_clip.get_model_config(architecture) if architecture in architectures() else None
        if found is None:
            raise UnknownModel(f"open_clip has no architecture {architecture!r}.", "Its names look like ViT-B-32.")
        model_cfg, published = found, _published(architecture, weights) if isinstance(weights, str) else {}
    else:
        model_cfg, published = deepcopy(dict(architecture)), {}
        if isinstance(weights, str):
            raise UnknownModel(f"The weights {weights!r} are a tag, and a configuration has no tags.")
    tokenizer = _build_tokenizer(model_cfg, merges, tokenizer_folder)
    file = _fetch(architecture, weights, published) if isinstance(weights, str) else weights
    clip = _build_clip(model_cfg)
    if file is not None:
        _load_weights(clip, file)
    if isinstance(architecture, str):
        warn_of_activation(model_cfg, architecture, weights, published)
    if isinstance(architecture, str) and not published:
        published = _agreed_preprocess(architecture)
    chosen = preprocess or _preprocess_of(clip, published)
    return Backbone(clip.float().eval(), model_cfg, chosen, tokenizer, merges)


def bpe_tokenizer(merges: Path | None = None, **options: Any) -> BpeTokenizer:
    """CLIP's tokenizer, or one over a merges file of one's own: 512 byte symbols, the merges, start, end.

    options: open_clip's, such as clean="canonicalize". Raises: TokenizerUnavailable.
    """
    archive = {} if merges is None else {"bpe_path": merges_archive(merges)}
    bpe = tokenizers.SimpleTokenizer(**archive, **options)
    return BpeTokenizer(
        encode=bpe.encode,
        piece=lambda i: bpe.decode([i]).strip(),
        start_id=bpe.sot_token_id,
        end_id=bpe.eot_token_id,
        vocab_size=max(bpe.encoder.values()) + 1,
    )


def _build_clip(model_cfg: dict[str, Any]) -> nn.Module:
    arguments = deepcopy(model_cfg)
    is_custom = arguments.pop("custom_text", False) or "hf_model_name" in arguments["text_cfg"]
    kind = towers.CustomTextCLIP if is_custom else towers.CLIP
    if "multimodal_cfg" in arguments:
        kind = open_clip.CoCa
    arguments["vision_cfg"]["timm_model_pretrained"] = False
    arguments["text_cfg"]["hf_model_pretrained"] = False
    try:
        built: nn.Module = kind(**arguments)
    except (TypeError, KeyError, AssertionError) as error:
        raise UnknownModel(f"open_clip can't build this model configuration: {error}.") from error
    except (OSError, RuntimeError, ImportError) as error:
        why = reason_of(error, _path_in(model_cfg["text_cfg"].get("hf_model_name")))
        raise WeightsUnavailable(f"A tower's configuration isn't available: {why}.", OFFLINE_HINT) from error
    return built


def _agreed_preprocess(architecture: str) -> dict[str, Any]:
    """The preprocessing that all published weights of an architecture agree on, for weights without a tag; else {}."""
    names = ("mean", "std", "interpolation", "resize_mode")
    known = [open_clip.get_pretrained_cfg(architecture, tag) or {} for tag in weight_tags(architecture)]
    found = [{name: cfg.get(name) for name in names} for cfg in known]
    return found[0] if found and all(values == found[0] for values in found) else {}


def _preprocess_of(clip: Any, published: Mapping[str, Any]) -> Preprocess:
    preprocessing = open_clip.transform
    merged = preprocessing.merge_preprocess_dict(asdict(preprocessing.PreprocessCfg()), dict(published))
    size = getattr(clip.visual, "image_size", merged["size"])
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    if height != width:
        raise UnknownModel(f"The image tower takes {height} x {width} pixels; only square ones are served.")
    return Preprocess(
        image_size=int(height),
        mean=tuple(merged["mean"]),
        std=tuple(merged["std"]),
        interpolation="bilinear" if merged["interpolation"] == "bilinear" else "bicubic",
        resize_mode=merged["resize_mode"] or "shortest",
        fill_color=int(merged["fill_color"]),
    )


def _build_tokenizer(model_cfg: Mapping[str, Any], merges: Path | None, folder: Path | None) -> Tokenizer:
    text_cfg = model_cfg["text_cfg"]
    named = text_cfg.get("hf_tokenizer_name")
    if named and merges is None:
        options = tokenizer_options(text_cfg, ("clean", "strip_sep_token", "language"))
        return _transformers_tokenizer(text_cfg, folder or _path_in(named), str(named), options)
    tokenizer = bpe_tokenizer(merges, **tokenizer_options(text_cfg, ("clean",)))
    room = int(text_cfg.get("vocab_size", 49408))
    if tokenizer.vocab_size > room:
        raise TokenizerUnavailable(
            f"The vocabulary has {tokenizer.vocab_size} tokens and the text tower room for {room}.", path=merges
        )
    return tokenizer


def _transformers_tokenizer(
    text_cfg: Mapping[str, Any], folder: Path | None, named: str, options: dict[str, Any]
) -> Tokenizer:
    """From a folder, or else by its name on the hub."""
    hint = (
        "Install the transformers package and fetch the tokenizer once on a machine with internet, choose an "
        "architecture with CLIP's own tokenizer (ViT-B-32-quickgelu), or set VIDGRAIN_MODEL=tiny."
    )
    shown, mode = public_name(named), text_cfg.get("tokenizer_mode")
    if mode:
        raise TokenizerUnavailable(
            f"The tokenizer {shown} works in mode {mode!r}, which isn't supported.", hint, path=folder
        )
    source = named if folder is None else str(folder)
    options = {**options, "trust_remote_code": False}
    if Path(source).is_dir() or not hub.is_reachable(hub.endpoint()):
        options["local_files_only"] = True
    try:
        context_length = text_cfg.get("context_length", 77)
        wrapper = tokenizers.HFTokenizer(source, context_length=context_length, **options)
    except (ImportError, OSError, ValueError, RuntimeError, AttributeError) as error:
        why = reason_of(error, folder)
        raise TokenizerUnavailable(f"The tokenizer {shown} can't be loaded: {why}.", hint, path=folder) from error
    return TransformersTokenizer(wrapper, wrapper.tokenizer)


def _published(architecture: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of published weights: where they are, and their preprocessing."""
    known = open_clip.get_pretrained_cfg(architecture, tag)
    if not known:
        tags = ", ".join(weight_tags(architecture)) or "none"
        raise UnknownModel(f"{architecture} has no published weights {tag!r}.", f"It has: {tags}.")
    return dict(known)


def _fetch(architecture: str | Mapping[str, Any], tag: str, published: Mapping[str, Any]) -> Path:
    """The weights' file, from the local cache or the network; promptly without either."""
    message = f"The weights {tag!r} of {architecture} can't be fetched"
    cached = hub.cached_file(str(published.get("hf_hub", "")))
    if cached is not None:
        return cached
    source = hub.endpoint() if published.get("hf_hub") else str(published.get("url", ""))
    if not hub.is_reachable(source):
        raise WeightsUnavailable(f"{message}: {urlsplit(source).hostname} can't be reached.", OFFLINE_HINT)
    try:
        return Path(open_clip.download_pretrained(dict(published)))
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsUnavailable(f"{message}: {reason_of(error, _DOWNLOADS)}.", OFFLINE_HINT) from error


def _load_weights(clip: nn.Module, file: Path) -> None:
    """Load a state dict in open_clip's or OpenAI's layout; every key must fit."""
    try:
        result = open_clip.load_checkpoint(clip, str(file), strict=False, weights_only=True)
    except FileNotFoundError as error:
        raise WeightsUnavailable("There is no such file.", OFFLINE_HINT, path=file) from error
    except Exception as error:  # every reader fails in its own way: safetensors, pickle, zip, and load_state_dict
        if isinstance(error, AssertionError) or "size mismatch" in str(error):
            raise CheckpointMismatch(f"It doesn't fit the architecture: {error}", path=file) from error
        raise WeightsUnavailable(
            f"The weights can't be read: {reason_of(error, file).split(' Re-run')[0]}.", path=file
        ) from error
    missing, unexpected = (list(result.missing_keys), list(result.unexpected_keys)) if result else ([], [])
    if missing or unexpected:
        raise CheckpointMismatch(
            f"It doesn't fit the architecture: {len(missing)} keys missing ({_some(missing)}), "
            f"{len(unexpected)} unknown ({_some(unexpected)}).",
            path=file,
        )


def _path_in(value: Any) -> Path | None:
    """A path where a configuration names one instead of a repository of the hub."""
    return Path(value) if isinstance(value, str) and Path(value).is_absolute() else None


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "none"
