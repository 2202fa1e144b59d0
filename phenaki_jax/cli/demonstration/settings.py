"""How large a demo is."""

from __future__ import annotations

import dataclasses

SETTINGS_FILE = "demo.json"
"""What a demo's folder says of its settings, from the first moment on."""


@dataclasses.dataclass(frozen=True)
class DemoSettings:
    """Sizes of a demo; a folder belongs to one choice of them.

    Attributes:
      train_videos: training clips.
      test_videos: clips whose first segment shows a held-out combination.
      train_images: training images.
      test_images: test images.
      tokenizer_steps: steps of the tokenizer's training.
      image_steps: steps of the transformer's training on images alone, before videos come in.
      transformer_steps: steps of the transformer's training on both.
      batch_size: examples of a step of the tokenizer; the transformer takes twice as many, of images four times.
      clips_per_combination: clips drawn for each held-out combination.
      clips_per_transfer: clips drawn for each combination with a colour that only images show.
      stories: stories of four prompts that are judged.
      long_story_windows: windows of the story whose time and memory are watched.
      evaluated_examples: test captions whose videos the protocol moving_shapes compares with real clips, two of each.
      real_clips: as many real clips.
      sampling_steps: rounds of prediction of a window.
    """

    train_videos: int = 4000
    test_videos: int = 310
    train_images: int = 8000
    test_images: int = 96
    tokenizer_steps: int = 1300
    image_steps: int = 900
    transformer_steps: int = 1250
    batch_size: int = 16
    clips_per_combination: int = 8
    clips_per_transfer: int = 2
    stories: int = 62
    long_story_windows: int = 100
    evaluated_examples: int = 124
    real_clips: int = 900
    sampling_steps: int = 16


FULL = DemoSettings()
QUICK = DemoSettings(
    train_videos=64,
    test_videos=31,
    train_images=64,
    test_images=32,
    tokenizer_steps=100,
    image_steps=40,
    transformer_steps=40,
    batch_size=4,
    clips_per_combination=1,
    clips_per_transfer=1,
    stories=2,
    long_story_windows=6,
    evaluated_examples=8,
    real_clips=60,
    sampling_steps=2,
)
