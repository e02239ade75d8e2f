"""Decode: from a clip's window in a file to frames with times and 16 kHz sound.

`decode_clip` works in the calling process; `Decoder` puts a child process around it, because any
decoder can be brought down by a damaged file. Neither knows models, tables or Ray.
"""

from emer_ray.media.decode import check_decoders, decode_clip
from emer_ray.media.decoder import Decoder

__all__ = ["Decoder", "check_decoders", "decode_clip"]
