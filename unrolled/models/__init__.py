"""Models composed of layers. Each can be trained and decoded by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unrolled.lazy import door

if TYPE_CHECKING:
    from unrolled.models.captioner import Captioner, PictureFeatures
    from unrolled.models.captioners import CAPTIONERS
    from unrolled.models.classifier import Classifier
    from unrolled.models.contract import Decodable
    from unrolled.models.crf import CRF
    from unrolled.models.decoder import Context, Decoder
    from unrolled.models.encoder import Encoder
    from unrolled.models.encoder_decoder import EncoderDecoder
    from unrolled.models.language import LanguageModel
    from unrolled.models.segmenter import Segmenter
    from unrolled.models.tagger import Tagger
    from unrolled.models.transcriber import Transcriber
else:
    __getattr__ = door(
        __name__,
        {
            "captioner": ("Captioner", "PictureFeatures"),
            "captioners": ("CAPTIONERS",),
            "classifier": ("Classifier",),
            "contract": ("Decodable",),
            "crf": ("CRF",),
            "decoder": ("Context", "Decoder"),
            "encoder": ("Encoder",),
            "encoder_decoder": ("EncoderDecoder",),
            "language": ("LanguageModel",),
            "segmenter": ("Segmenter",),
            "tagger": ("Tagger",),
            "transcriber": ("Transcriber",),
        },
    )

__all__ = [
    "CAPTIONERS",
    "CRF",
    "Captioner",
    "Classifier",
    "Context",
    "Decodable",
    "Decoder",
    "Encoder",
    "EncoderDecoder",
    "LanguageModel",
    "PictureFeatures",
    "Segmenter",
    "Tagger",
    "Transcriber",
]
