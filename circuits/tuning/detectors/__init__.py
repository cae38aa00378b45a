"""Detectors by their tuning: curves, lines, high-low frequency, color contrast.

Published unit numbers hold for one set of weights. In any other network the units have to be searched for::

    detectors = circuits.detectors.find_detectors(model, "curve", layers=["mixed3b"])
    for detector in detectors.rows:
        print(detector.unit, detector.score, detector.orientation)
"""

from circuits.tuning.detectors.detector_types import KINDS as KINDS
from circuits.tuning.detectors.search import (
    Detector as Detector,
    Detectors as Detectors,
    find_detectors as find_detectors,
)
from circuits.tuning.detectors.sign_rule import SignRule as SignRule, sign_rule as sign_rule
from circuits.units.high_low_factors import FrequencyFactors as FrequencyFactors, frequency_factors as frequency_factors
