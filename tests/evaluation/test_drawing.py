"""Videos of a protocol: of its frames, each by its own number, and of models that can make them."""

import dataclasses

import jax
import numpy as np
import pytest

from phenaki_jax.data.clips import Clip
from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.drawing import Drawer, check_model
from phenaki_jax.evaluation.protocols import PROTOCOLS, Protocol
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.testing import random_params, tiny_config, tiny_metadata
from phenaki_jax.training.sharding import MeshConfig


@pytest.fixture(autouse=True)
def compiled_quickly() -> None:
    """What goes on around the networks is tested here."""
    jax.config.update("jax_disable_most_optimizations", True)


def test_predictions_begin_with_the_given_frames_and_end_where_the_protocol_does(
    model: Phenaki, protocol: Protocol
) -> None:
    """Windows of 5 frames, 3 of them given: 5, 7 and 9 frames, of which 8 are kept."""
    prediction = dataclasses.replace(protocol, kind="prediction", given=3, frames=8)
    layout = MeshConfig().over(jax.local_devices())
    drawer = Drawer(model, prediction, layout, 0)
    video = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    clips = [Clip(video, "a red circle moves up")] * 4
    with layout.applied():
        first, second, *_ = np.asarray(drawer.make(clips, [3, 4, 5, 6]))
        # What is drawn depends on the number of the video, not on its place in a batch.
        again = np.asarray(drawer.make(clips, [6, 5, 4, 3]))[3]
    assert first.shape == video.shape
    np.testing.assert_array_equal(first[:3], video[:3])
    assert (first[3:] != second[3:]).any()
    np.testing.assert_array_equal(again, first)


def test_a_model_that_cannot_do_a_protocol_is_refused(model: Phenaki) -> None:
    alone = Phenaki(tiny_config().tokenizer, {"tokenizer": model.params["tokenizer"]})
    shapes = PROTOCOLS["moving_shapes"]
    check_model(PROTOCOLS["moving_shapes_reconstruction"], alone)
    with pytest.raises(UserError, match="found a tokenizer alone, expected a model with a transformer for moving_sha"):
        check_model(shapes, alone)
    with pytest.raises(UserError, match="found a model of frames of 32 x 32 pixels, expected 64 x 64 for bair"):
        check_model(PROTOCOLS["bair"], model)
    prediction = dataclasses.replace(shapes, kind="prediction", given=2)
    with pytest.raises(UserError, match="2 frames"):
        check_model(prediction, model)
    with pytest.raises(UserError, match="found windows of 5 frames, expected more than the 5 given ones"):
        check_model(dataclasses.replace(prediction, given=5), model)
    config = tiny_config()
    still = Phenaki(config, model.params, dataclasses.replace(tiny_metadata(), prefix_frames=0))
    with pytest.raises(UserError, match="windows of 5 frames that nothing goes on from"):
        check_model(shapes, still)
    silent = dataclasses.replace(config, text=None, transformer=dataclasses.replace(config.transformer, text_width=0))
    without_text = Phenaki(silent, random_params(silent), tiny_metadata())
    with pytest.raises(UserError, match="found a model without text, expected one that is trained on text"):
        check_model(shapes, without_text)
    check_model(dataclasses.replace(prediction, given=3), without_text)


def test_a_prediction_without_text_is_drawn_by_the_null_text(model: Phenaki, protocol: Protocol) -> None:
    """Which changes it, and no other of the batch."""
    prediction = dataclasses.replace(protocol, kind="prediction", given=3, frames=5)
    metadata = dataclasses.replace(tiny_metadata(), sampling=SamplingConfig(steps=2, guidance=0.0))
    layout = MeshConfig().over(jax.local_devices()[:1])
    video = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    params = jax.tree.map(np.asarray, dict(model.params))
    null = params["transformer"]["null_text"]
    changed = {**params, "transformer": {**params["transformer"], "null_text": 10 * np.sign(null)}}
    drawn = []
    for each in (params, changed):
        drawer = Drawer(Phenaki(model.config, each, metadata, truncate_prompts=True), prediction, layout, 0)
        with layout.applied():
            drawn.append(np.asarray(drawer.make([Clip(video, text) for text in ("", "a red circle")], [0, 1])))
    assert (drawn[0][0] != drawn[1][0]).any()
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])
