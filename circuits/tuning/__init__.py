"""Tuning curves: responses of units to synthetic stimuli along known axes, and to images that are rotated."""

from circuits.tuning.curves import Curve as Curve, Tuning as Tuning, UnitTuning as UnitTuning
from circuits.tuning.joint_tuning import JointTuning as JointTuning, joint_tuning as joint_tuning
from circuits.tuning.measure import tune as tune
