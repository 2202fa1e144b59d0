"""Captions as they are found in files and on web pages, made into plain text."""

from __future__ import annotations

import codecs
import html
import re
import unicodedata
from typing import NamedTuple

from phenaki_jax.errors import UserError

_TAG_NAMES = (
    "a abbr address article aside audio b bdi bdo big blockquote body br button caption center cite code col colgroup "
    "dd del details dfn div dl dt em figcaption figure font footer form h[1-6] head header hr html i iframe img input "
    "ins kbd label li link main map mark meta nav noscript ol option p pre q s samp script section select small source "
    "span strike strong style sub summary sup svg table tbody td textarea tfoot th thead title tr tt u ul var video wbr"
)
# Nothing of it can match in two ways, so that what is no tag costs no more than its length.
_TAG = re.compile(
    rf"</?(?:{'|'.join(_TAG_NAMES.split())})"
    r"""(?:\s++[\w:.-]++\s*+=\s*+(?:"[^"<>]*+"|'[^'<>]*+'|[^\s"'<>=]++))*+\s*+/?>""",
    re.IGNORECASE,
)
# Python refuses to read so many digits; a character has at most seven.
_ENDLESS_ENTITY = re.compile(r"&#\d{8,}+;?")
# Marks of no width that change nothing of what is read, or only its direction; joiners, which some scripts need, stay.
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class CleanCaption(NamedTuple):
    """A caption as it is stored.

    Attributes:
      text: without line breaks; empty where nothing was left.
      note: what was lost; empty where nothing was.
    """

    text: str
    note: str


def decode_text(data: bytes) -> tuple[str, str]:
    """Text of a file, and a note where it is not in UTF-8 and was read as cp1252, as of western Windows.

    Raises:
      UserError: it is neither.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, errors="replace"), ""
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp1252"), "text is not in UTF-8 and was read as cp1252"
    except UnicodeDecodeError as error:
        raise UserError(
            f"text is neither UTF-8 nor cp1252 (byte 0x{data[error.start]:02x} at {error.start}): save it as UTF-8"
        ) from error


def clean_caption(text: str, most: int) -> CleanCaption:
    """Plain text in Unicode's composed form, of at most so many characters.

    Tags of HTML go, entities become what they stand for, control characters and runs of white space become one space.
    What is too long is cut where a word ends.
    """
    # Once more, as what was escaped may be tags again.
    plain = _without_tags(html.unescape(_ENDLESS_ENTITY.sub(" ", _without_tags(text))))
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFC", plain))
    plain = "".join(" " if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") else each for each in plain)
    plain = " ".join(plain.split())
    if len(plain) <= most:
        return CleanCaption(plain, "")
    # One more than fits: where a word ends right there, it stays whole.
    cut = plain[: most + 1].rpartition(" ")[0] or plain[:most]
    return CleanCaption(cut.rstrip(), f"caption of {len(plain)} characters cut to {len(cut.rstrip())}")


def _without_tags(text: str) -> str:
    kept, end = [], 0
    while (start := text.find("<!--", end)) >= 0 and (closed := text.find("-->", start + 4)) >= 0:
        kept.append(text[end:start])
        end = closed + 3
    return _TAG.sub(" ", " ".join([*kept, text[end:]]))


def clean_captions(texts: list[str], most: int) -> tuple[list[str], list[str]]:
    """The captions that are left of several, each once, and notes on them."""
    cleaned = [clean_caption(text, most) for text in texts]
    kept = dict.fromkeys(each.text for each in cleaned if each.text)
    return list(kept), [each.note for each in cleaned if each.note]
