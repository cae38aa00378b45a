"""What units are tuned to: responses to drawn stimuli along known axes, and to photographs that are turned."""

from circuits.tuning.curves import Curve, Tuning, UnitTuning
from circuits.tuning.joint_tuning import JointTuning, joint_tuning
from circuits.tuning.measure import tune

__all__ = ["Curve", "JointTuning", "Tuning", "UnitTuning", "joint_tuning", "tune"]
