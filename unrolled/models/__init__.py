"""Models composed of layers. Each can be trained and decoded by itself."""

from unrolled.models.contract import Decodable
from unrolled.models.decoder import Context, Decoder
from unrolled.models.encoder import Encoder
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.language import LanguageModel

__all__ = ["Context", "Decodable", "Decoder", "Encoder", "EncoderDecoder", "LanguageModel"]
