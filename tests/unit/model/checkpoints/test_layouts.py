"""Every layout becomes the official one and comes back as it was; what doesn't fit is named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.checkpoints.hugging_face import hf_config, hf_names, openai_name, tower_options
from model.checkpoints.layouts import (
    CLIP_LOGIT_SCALE,
    LAYOUTS,
    Layout,
    from_official,
    head_names,
    layout_of,
    merge_towers,
    to_official,
    tower_config,
    towers_only,
    unwrapped,
)
from model.checkpoints.names import PASSED_OVER, passed_over
from model.errors import CheckpointMismatch
from tests.support.hf_clip import frame_embeddings, word_embeddings

# no two sizes are the same, so that a tensor the wrong way round is seen
VIT: dict[str, Any] = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 24, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 9, "vocab_size": 50, "width": 128, "heads": 2, "layers": 3},
}
RESNET = VIT | {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 64, "patch_size": None}}
DTYPES = (torch.float32, torch.float16)


def openai_state(
    config: Mapping[str, Any] = VIT, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Tensor]:
    """Random towers under the names that open_clip's CLIP, and OpenAI's, give them."""
    torch.manual_seed(seed)
    clip = open_clip.CLIP(**config)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    state: dict[str, Tensor] = clip.state_dict()
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}


def head_state(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A few of X-CLIP's tensors beside the towers'."""
    torch.manual_seed(9)
    names = {"global_mat_weight": (48, 48), "word_mat_weight2": (7, 7), "frame_position_embeddings.weight": (9, 48)}
    names["transformerClip.resblocks.0.attn.in_proj_weight"] = (144, 48)
    return {name: torch.randn(shape).to(dtype) for name, shape in names.items()}


def state_in(layout: Layout, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A state dict of a layout, made without the code under test where that can be."""
    towers = openai_state(dtype=dtype)
    official = {f"clip.{name}": value for name, value in towers.items()}
    if layout == "official":
        return official | head_state(dtype)
    if layout == "hugging_face":
        return from_official(official, "hugging_face")
    if layout == "openai":
        return towers | {name: torch.tensor(n) for name, n in _sizes().items()}
    return towers


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) and value.dtype == other[name].dtype for name, value in one.items()
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_known_and_comes_back_as_it_was(layout: Layout, dtype: torch.dtype) -> None:
    state = state_in(layout, dtype)
    assert layout_of(state) == layout
    official = to_official(state)
    assert {value.dtype for value in official.values()} == {torch.float32}
    back = from_official(official, layout)
    assert same({name: value.to(dtype) if value.is_floating_point() else value for name, value in back.items()}, state)
    assert same(to_official(back), official)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_of_one_model_become_one_official_state(layout: Layout, dtype: torch.dtype) -> None:
    towers = to_official(towers_only(state_in("official", dtype)))
    assert same(towers_only(to_official(state_in(layout, dtype))), towers)


def test_an_official_head_goes_through_untouched_and_other_layouts_refuse_it() -> None:
    state = state_in("official")
    assert set(head_names(state)) == head_state().keys() and same(from_official(state, "official"), state)
    for layout in ("openai", "open_clip", "hugging_face"):
        with pytest.raises(CheckpointMismatch, match="global_mat_weight"):
            from_official(state, layout)
        assert layout_of(from_official(towers_only(state), layout)) == layout
    with pytest.raises(CheckpointMismatch, match="official names are needed"):
        from_official(state_in("openai"), "open_clip")


def test_the_numbers_of_the_hugging_face_layout_are_the_same() -> None:
    """Through open_clip's own towers, and by hand from the converted names with separate q, k and v."""
    towers = openai_state()
    clip = open_clip.CLIP(**VIT).eval()
    clip.load_state_dict(towers)
    pixels, ids = torch.randn(3, 3, 24, 24), torch.randint(0, 49, (4, 9))
    ids[:, 5] = 49  # the end of text has the largest id
    hf = from_official({f"clip.{name}": value for name, value in towers.items()}, "hugging_face")
    with torch.no_grad():
        frames, words = frame_embeddings(hf, pixels, heads=1), word_embeddings(hf, ids, heads=2)
        torch.testing.assert_close(frames, clip.encode_image(pixels), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(words[:, 5], clip.encode_text(ids), atol=1e-5, rtol=1e-5)


def test_names_of_hugging_face_are_a_table_both_ways() -> None:
    for name in openai_state():
        for theirs in hf_names(name):
            assert openai_name(theirs) == name
    assert openai_name("vision_model.pre_layernorm.weight") is None and hf_names("visual.bn1.weight") == []


@pytest.mark.parametrize("config", [VIT, RESNET])
def test_towers_tell_their_own_configuration(config: dict[str, Any]) -> None:
    state = {f"clip.{name}": value for name, value in openai_state(config).items()}
    assert tower_config(state) == config
    open_clip.CLIP(**tower_config(state)).load_state_dict(openai_state(config))
    layouts: tuple[Layout, ...] = ("openai", "hugging_face") if config is VIT else ("openai",)
    for layout in layouts:
        assert tower_config(from_official(state, layout)) == config


@given(width=st.integers(1, 20), hidden=st.integers(1, 2000))
@settings(deadline=None, max_examples=60)
def test_any_hidden_width_is_told_exactly(width: int, hidden: int) -> None:
    state = {name: torch.empty(value.shape, device="meta") for name, value in openai_state().items()}
    for name, value in state.items():
        if ".mlp.c_fc" in name and name.startswith("visual."):
            state[name] = torch.empty(hidden, *value.shape[1:], device="meta")
    state["visual.conv1.weight"] = torch.empty(64 * width, 3, 8, 8, device="meta")
    told = tower_config(state, quick_gelu=True)["vision_cfg"]
    assert int(told["width"] * told.get("mlp_ratio", 4.0)) == hidden


def test_shapes_do_not_tell_activation_and_heads() -> None:
    bare = state_in("open_clip")
    with pytest.raises(CheckpointMismatch, match="ViT-B-32-quickgelu"):
        tower_config(bare)
    told = tower_config(bare, quick_gelu=False, vision_heads=4, text_heads=8)
    assert not told["quick_gelu"] and told["vision_cfg"]["head_width"] == 16 and told["text_cfg"]["heads"] == 8
    assert tower_config(bare, quick_gelu=True, vision_heads=1, text_heads=2) == VIT
    with pytest.raises(CheckpointMismatch, match="width of 64 can't be divided by 5"):
        tower_config(bare, quick_gelu=False, vision_heads=5)
    narrow = openai_state(VIT | {"text_cfg": VIT["text_cfg"] | {"width": 32, "heads": 4}})
    with pytest.raises(CheckpointMismatch, match="width of 32"):
        tower_config(narrow, quick_gelu=True)
    assert tower_config(narrow, quick_gelu=True, text_heads=4)["text_cfg"]["width"] == 32


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("visual.positional_embedding", (7, 64), "6 image positions"),
        ("visual.proj", (64, 40), "ends in 40 numbers and the text tower in 48"),
        ("token_embedding.weight", (50,), "shapes aren't CLIP's"),
        ("visual.conv1.weight", (64, 3, 8), "shapes aren't CLIP's"),
        ("text_projection", (), "shapes aren't CLIP's"),
    ],
)
def test_shapes_that_contradict_each_other_are_said(name: str, shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(CheckpointMismatch, match=told):
        tower_config(openai_state() | {name: torch.zeros(shape)}, quick_gelu=True)


def test_a_custom_text_tower_of_open_clip_is_read_as_its_plain_twin() -> None:
    plain = openai_state()
    custom = {
        name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": value
        for name, value in plain.items()
    }
    clip = open_clip.CustomTextCLIP(**VIT)
    assert clip.state_dict().keys() == custom.keys()
    assert layout_of(custom) == "open_clip" and same(to_official(custom), to_official(plain))
    with pytest.raises(CheckpointMismatch, match=r"1 of .* unknown .*: ln_final\.weight"):
        to_official(custom | {"ln_final.weight": torch.ones(128)})
    with pytest.raises(CheckpointMismatch, match=r"unknown .*text\.visual\.proj"):
        to_official(custom | {"text.visual.proj": torch.ones(64, 48)})


def test_wrappers_and_prefixes_are_taken_off() -> None:
    state = state_in("official", torch.float16)
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    assert layout_of(wrapped) == "official" and same(to_official(wrapped), to_official(state))
    with pytest.raises(CheckpointMismatch, match="epoch"):
        unwrapped({"epoch": 3, "clip.logit_scale": torch.ones(())})
    with pytest.raises(CheckpointMismatch, match="no weights"):
        layout_of({})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unknown_keys_are_named(layout: Layout) -> None:
    state = state_in(layout)
    for stranger in ("extra.weight", "clip.visual.transformer.resblocks.0.attn.bias_k", "visual.trunk.head.weight"):
        with pytest.raises(CheckpointMismatch, match=stranger.split(".")[-1]):
            layout_of(state | {stranger: torch.ones(2)})


def test_a_resnet_has_no_keys_of_a_transformer_and_no_hugging_face_layout() -> None:
    resnet = {f"clip.{name}": value for name, value in openai_state(RESNET).items()}
    assert "clip.visual.bn1.num_batches_tracked" in resnet
    with pytest.raises(CheckpointMismatch, match="class_embedding"):
        to_official(resnet | {"clip.visual.class_embedding": torch.ones(64)})
    with pytest.raises(CheckpointMismatch, match=r"no place for .*vision transformer only"):
        from_official(resnet, "hugging_face")
    with pytest.raises(CheckpointMismatch, match=r"missing: clip\.visual\.layer2\.0\.conv2\.weight"):
        to_official({name: value for name, value in resnet.items() if name != "clip.visual.layer2.0.conv2.weight"})


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_any_missing_key_is_named(layout: Layout, data: st.DataObject) -> None:
    state = state_in(layout)
    ignorable = {"logit_scale"} if layout == "hugging_face" else {"input_resolution", "context_length", "vocab_size"}
    names = sorted(state.keys() - ignorable - head_state().keys())
    lost = data.draw(st.sampled_from(names))
    rest = {name: value for name, value in state.items() if name != lost}
    assert layout_of(rest) == layout
    with pytest.raises(CheckpointMismatch) as caught:
        to_official(rest)
    assert f"missing: {lost}" in caught.value.message or (layout == "hugging_face" and lost in caught.value.message)


@given(data=st.data(), dtype=st.sampled_from(DTYPES), layout=st.sampled_from(LAYOUTS), shuffled=st.randoms())
@settings(deadline=None, max_examples=25)
def test_detection_looks_at_no_order_and_no_number(
    data: st.DataObject, dtype: torch.dtype, layout: Layout, shuffled: Any
) -> None:
    state = state_in(layout, dtype)
    names = list(state)
    shuffled.shuffle(names)
    assert layout_of({name: state[name] for name in names}) == layout


def test_a_hole_between_layers_and_an_absurd_layer_are_missing_keys() -> None:
    state = openai_state()
    holed = {name: value for name, value in state.items() if not name.startswith("transformer.resblocks.1.")}
    with pytest.raises(CheckpointMismatch, match=r"12 keys are missing: transformer\.resblocks\.1\.attn"):
        to_official(holed)
    absurd = state | {"transformer.resblocks.999999999.ln_1.bias": torch.ones(128)}
    with pytest.raises(CheckpointMismatch, match="keys are missing"):
        to_official(absurd)


def test_one_tower_says_which_is_absent_and_two_files_merge() -> None:
    """As the transformers library saves its models of one tower: no temperature in either."""
    whole = state_in("hugging_face")
    text = {name: value for name, value in whole.items() if name.startswith("text_")}
    image = {name: value for name, value in whole.items() if name.startswith("vis")}
    assert layout_of(text) == layout_of(image) == "hugging_face" and len(text) + len(image) + 1 == len(whole)
    with pytest.raises(CheckpointMismatch, match=r"the image tower is missing.*one folder"):
        to_official(text)
    with pytest.raises(CheckpointMismatch, match="the text tower is missing"):
        to_official(image)
    merged = to_official(merge_towers(text, image))
    assert merged.pop("clip.logit_scale").item() == pytest.approx(CLIP_LOGIT_SCALE) == math.log(100)
    expected = to_official(whole)
    expected.pop("clip.logit_scale")
    assert same(merged, expected)
    assert same(merge_towers(text, text), text)
    changed = text | {"text_model.final_layer_norm.bias": torch.full((128,), 7.0)}
    with pytest.raises(CheckpointMismatch, match=r"disagree on text_model\.final_layer_norm\.bias"):
        merge_towers(text, changed)


def test_misshapen_attention_of_hugging_face_is_said() -> None:
    state = state_in("hugging_face")
    name = "text_model.encoder.layers.1.self_attn.k_proj.weight"
    with pytest.raises(CheckpointMismatch, match=r"layers\.1\.self_attn\.k_proj\.weight \(128, 64\)"):
        to_official(state | {name: torch.zeros(128, 64)})
    with pytest.raises(CheckpointMismatch, match=r"visual_projection\.weight is \(48,\)"):
        to_official(state | {"visual_projection.weight": torch.zeros(48)})


def test_a_temperature_of_one_entry_becomes_a_scalar() -> None:
    state = openai_state() | {"logit_scale": torch.tensor([2.5])}
    assert to_official(state)["clip.logit_scale"].shape == ()


def test_what_is_passed_over_has_a_reason_and_is_read_where_it_counts() -> None:
    towers = {f"clip.{name}": value for name, value in openai_state().items()}
    buffers = {"clip.input_resolution": torch.tensor(224), "clip.vocab_size": torch.tensor(50)}
    positions = {"frame_position_embeddings.weight": torch.ones(9, 48)}
    lstm = {"lstm_visual.weight_hh_l0": torch.ones(192, 48)}
    stack = {"transformerClip.resblocks.0.ln_1.bias": torch.ones(48)}
    norm = {"trans_layernorm.weight": torch.ones(48)}
    assert same(to_official(towers | buffers), towers)
    assert same(to_official(towers | positions | lstm), towers | lstm)
    assert same(to_official(towers | positions | stack), towers | positions | stack)
    assert same(to_official(towers | norm), towers)
    projected = towers | norm | {"frame2t_projection": torch.ones(48, 48)}
    assert same(to_official(projected), projected)
    ids = {"text_model.embeddings.position_ids": torch.arange(9)[None]}
    assert same(to_official(state_in("hugging_face") | ids), to_official(state_in("hugging_face")))
    assert all(rule.reason for rule in PASSED_OVER) and set(passed_over(buffers)) == buffers.keys()


def test_config_json_of_hugging_face_says_what_shapes_cannot() -> None:
    state = state_in("hugging_face")
    assert tower_config(state, **tower_options(hf_config(VIT))) == VIT
    gelu = VIT | {"quick_gelu": False, "vision_cfg": VIT["vision_cfg"] | {"head_width": 16}}
    assert tower_config(state, **tower_options(hf_config(gelu))) == gelu
    whole = hf_config(gelu)
    halves = (whole["text_config"], whole["vision_config"])
    assert tower_options(*halves) == tower_options(whole)
    assert tower_options(halves[1])["text_heads"] is None
    assert tower_options() == {"quick_gelu": True, "vision_heads": None, "text_heads": None}
    assert tower_options({"model_type": "clip"}) == {"quick_gelu": True, "vision_heads": 12, "text_heads": 8}
    older = {"model_type": "clip", "text_config": {"num_attention_heads": 3}}
    assert tower_options(older | {"text_config_dict": {"num_attention_heads": 5}})["text_heads"] == 5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "xclip"}, "type 'xclip'"),
        ({"text_config": {"hidden_act": "relu"}, "vision_config": {"hidden_act": "relu"}}, "relu"),
        ({"text_config": {"hidden_act": "gelu"}, "vision_config": {}}, "gelu and quick_gelu"),
        ({"vision_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps of 1e-06"),
    ],
)
def test_a_config_json_of_another_model_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointMismatch, match=told):
        tower_options(hf_config(VIT) | change)


def _sizes() -> dict[str, int]:
    return {"input_resolution": 24, "context_length": 9, "vocab_size": 50}
