"""METEOR 1.5 for English, as `pycocoevalcap` reports it, without Java (Denkowski and Lavie 2014).

Words match if they are equal, have the same stem, are synonyms in WordNet, or are paraphrases in METEOR's table. This
package reads those from an installed `pycocoevalcap`, whose METEOR is a Java program with this data.
"""

from unrolled.metrics.meteor.resources import Resources, find_resources, missing
from unrolled.metrics.meteor.score import meteor, meteor_statistics

__all__ = ["Resources", "find_resources", "meteor", "meteor_statistics", "missing"]
