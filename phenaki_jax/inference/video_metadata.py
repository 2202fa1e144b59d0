"""What a video file tells of how it was made: JSON in its comment, which copies of the file keep."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio_ffmpeg
from PIL import Image

PNG_COMMENT = "Comment"


@dataclasses.dataclass(frozen=True)
class Making:
    """How a video was made.

    Attributes:
      prompts: what it shows, scene by scene.
      seed: of all its randomness.
      model: name of the exported model's folder.
      fingerprint: of its parameters; empty where it is not known.
      sampling: how tokens were drawn, and a negative prompt where there was one.
      phenaki_jax: version of the package.
      begins_with: name of the file whose frames it begins with; empty where there is none.
    """

    prompts: tuple[str, ...]
    seed: int
    model: str
    fingerprint: str
    sampling: Mapping[str, Any]
    phenaki_jax: str
    begins_with: str = ""

    @property
    def comment(self) -> str:
        """All of it as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @property
    def ffmetadata(self) -> str:
        """All of it, and the prompts as a description, as ffmpeg reads it (https://ffmpeg.org/ffmpeg-formats.html)."""
        tags = {"description": "; ".join(self.prompts), "comment": self.comment}
        escaped = {name: re.sub(r"([=;#\\\n])", r"\\\1", value) for name, value in tags.items()}
        lines = [f"{name}={value}" for name, value in escaped.items()]
        return "\n".join([";FFMETADATA1", *lines, ""])


def read_making(path: str | Path) -> dict[str, Any] | None:
    """What a .mp4, .m4v, .gif or .png tells of how it was made; None where it tells nothing."""
    read = _comment_of_mp4 if Path(path).suffix.lower() in (".mp4", ".m4v") else _comment_of_picture
    try:
        found = json.loads(read(Path(path)))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "prompts" in found else None


def _comment_of_mp4(path: Path) -> str:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "quiet", "-i", f"file:{path}", "-f", "ffmetadata", "-"]
    told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).stdout.decode(errors="replace")
    found = re.search(r"^comment=((?:\\.|[^\\\n])*)", told, re.MULTILINE | re.DOTALL)
    return re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL) if found else ""


def _comment_of_picture(path: Path) -> str:
    with Image.open(path) as image:
        comment = image.info.get("comment") or image.info.get(PNG_COMMENT) or ""
    return comment.decode(errors="replace") if isinstance(comment, bytes) else str(comment)
