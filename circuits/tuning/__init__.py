"""Tuning curves: responses of units to synthetic stimuli along known axes, and to images that are rotated."""

from circuits.tuning.curves import Curve, Tuning, UnitTuning
from circuits.tuning.joint_tuning import JointTuning, joint_tuning
from circuits.tuning.measure import tune

__all__ = ["Curve", "JointTuning", "Tuning", "UnitTuning", "joint_tuning", "tune"]
