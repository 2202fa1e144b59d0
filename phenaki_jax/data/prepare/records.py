"""Examples as records of TFRecord files, byte for byte the same in every process."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import IO

import google_crc32c

from phenaki_jax.data.tensorflow_stack import tf, tfds
from phenaki_jax.errors import UserError

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_MASK = 0xA282EAD8


def dataset_features(size: int) -> tfds.features.FeaturesDict:
    """What a prepared example holds, as TFDS reads it; see `encode_example`."""
    frame = tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
    return tfds.features.FeaturesDict(
        {
            "frames": tfds.features.Sequence(frame),
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "source": tfds.features.Text(),
            "start": tfds.features.Scalar(tf.float32),
            "fps": tfds.features.Scalar(tf.float32),
            "original_size": tfds.features.Tensor(shape=(2,), dtype=tf.int64),
        }
    )


def encode_example(
    frames: Sequence[bytes],
    captions: Sequence[str],
    *,
    source: str,
    start: float,
    fps: float,
    original_size: tuple[int, int],
) -> bytes:
    """A record.

    Args:
      frames: as JPEG.
      captions: any number.
      source: what the file is called.
      start: seconds of the first frame in it.
      fps: frames per second.
      original_size: height and width of the file's frames.
    """
    features = {
        "frames": tf.train.Feature(bytes_list=tf.train.BytesList(value=frames)),
        "captions": _texts(captions),
        "source": _texts([source]),
        "start": tf.train.Feature(float_list=tf.train.FloatList(value=[start])),
        "fps": tf.train.Feature(float_list=tf.train.FloatList(value=[fps])),
        "original_size": tf.train.Feature(int64_list=tf.train.Int64List(value=original_size)),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def _texts(values: Sequence[str]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[each.encode() for each in values]))


def framed(record: bytes) -> bytes:
    """A record as it stands in a TFRecord file.

    The length, its checksum, the record, its checksum:
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
    """
    length = _LENGTH.pack(len(record))
    return b"".join((length, _checksum(length), record, _checksum(record)))


def read_framed(file: IO[bytes]) -> Iterator[bytes]:
    """The records of a file, still framed.

    Raises:
      UserError: it is damaged.
    """
    while header := file.read(_LENGTH.size + _CHECKSUM.size):
        body = file.read(_LENGTH.unpack(header[: _LENGTH.size])[0] + _CHECKSUM.size) if len(header) == 12 else b""
        record = body[: -_CHECKSUM.size]
        if framed(record) != header + body:
            raise UserError(f"{file.name}: found damaged records, expected what was written: begin anew")
        yield header + body


def payload(frame: bytes) -> bytes:
    """The record in its frame."""
    return frame[_LENGTH.size + _CHECKSUM.size : -_CHECKSUM.size]


def _checksum(data: bytes) -> bytes:
    checksum = google_crc32c.value(data)
    return _CHECKSUM.pack((((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF)
