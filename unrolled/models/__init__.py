"""Models: compositions of layers, each trainable and decodable by itself."""

from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.language import LanguageModel

__all__ = ["EncoderDecoder", "LanguageModel"]
