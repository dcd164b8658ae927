"""The official states of the golden cases through every layout, and their features by Hugging Face's arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoints.layouts import (
    LAYOUTS,
    Layout,
    from_official,
    head_names,
    layout_of,
    to_official,
    tower_config,
    towers_only,
)
from model.registry import load_network
from tests.parity.golden import golden_folder, load_case, tiny_clip_config, write_tiny_merges
from tests.support.hf_clip import frame_embeddings, word_embeddings

STATES = {"clip_tiny_state": 0, "xclip_seqTransf_state": 33, "clip2video_full_state": 54}


@pytest.mark.parametrize("name", STATES)
def test_official_states_go_through_every_layout(name: str) -> None:
    state = load_file(golden_folder() / "e2e" / f"{name}.safetensors")
    is_official = any(key.startswith("clip.") for key in state)
    assert layout_of(state) == ("official" if is_official else "open_clip")
    official = to_official(state)
    assert len(official) == len(state) and len(head_names(official)) == STATES[name]
    for layout in LAYOUTS:
        towers = towers_only(official)
        again = to_official(from_official(towers, layout))
        assert again.keys() == towers.keys() and all(torch.equal(again[key], towers[key]) for key in towers)
    halves = {key: value.half() for key, value in from_official(official, "official").items()}
    prefix = "" if is_official else "clip."
    assert halves.keys() == {prefix + key for key in state}
    assert all(torch.equal(value, halves[prefix + key]) for key, value in state.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_tells_the_towers_of_its_case(layout: Layout) -> None:
    case = load_case("e2e/clip_towers")
    state = from_official(to_official(case.state()), layout)
    expected = tiny_clip_config(case.config)
    assert expected["vision_cfg"].pop("head_width") == 64  # open_clip's own value, so it goes without saying
    assert tower_config(state, quick_gelu=True) == expected
    if layout != "open_clip":
        assert tower_config(state) == expected


def test_converted_names_give_the_official_features() -> None:
    """The towers' features from Hugging Face's names, with separate queries, keys and values."""
    case = load_case("e2e/clip_towers")
    hf = from_official(to_official(case.state()), "hugging_face")
    with torch.no_grad():
        frames = frame_embeddings(hf, case["in.pixels"].float().flatten(0, 1), case.config["vision_heads"])
        words = word_embeddings(hf, case["in.input_ids"], case.config["text_heads"])
    case.check("out.frame_embedding", frames)
    case.check("out.word_features", words)
    case.check("out.sentence_embedding", words[torch.arange(len(words)), case["out.eot_index"]])


def test_towers_loaded_from_hugging_face_give_the_official_features(tmp_path: Path) -> None:
    """The way back: their names -> a network of our own, built from nothing but the state dict."""
    from model.backbone import build_backbone

    case = load_case("e2e/clip_towers")
    hf = from_official(to_official(case.state()), "hugging_face")
    backbone = build_backbone(tower_config(hf), merges=write_tiny_merges(tmp_path))
    backbone.clip.load_state_dict({k.removeprefix("clip."): v for k, v in to_official(hf).items()})
    with torch.no_grad():
        sentence, words = backbone.encode_words(case["in.input_ids"])
        case.check("out.frame_embedding", backbone.encode_frames(case["in.pixels"].float().flatten(0, 1)))
    case.check("out.sentence_embedding", sentence)
    case.check("out.word_features", words)


@pytest.mark.parametrize("name", ["xclip_seqTransf", "clip2video_full"])
def test_a_bare_official_file_gives_the_official_scores(name: str, tmp_path: Path) -> None:
    """The file alone, no architecture named: towers, temporal encoder and head are told from names and shapes."""
    case, pixels = load_case(f"e2e/{name}"), load_case("e2e/clip_towers")["in.pixels"].float()
    file = tmp_path / "official.safetensors"
    file.write_bytes((golden_folder() / "e2e" / f"{name}_state.safetensors").read_bytes())
    write_tiny_merges(tmp_path)
    network = load_network(str(file), masks="reference")
    with torch.no_grad():
        videos = network.video(pixels, case["in.video_mask"].bool())
        texts = network.text(case["in.input_ids"], case["in.text_mask"].bool())
        case.check("out.sim_matrix", network.scale * network.similarity(texts, videos))
