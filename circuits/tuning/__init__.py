"""What units are tuned to: responses to drawn stimuli along known axes, and to photographs that are turned."""

from circuits.tuning.joint import JointTuning, joint_tuning
from circuits.tuning.responses import tune
from circuits.tuning.result import Curve, Tuning, UnitTuning

__all__ = ["Curve", "JointTuning", "Tuning", "UnitTuning", "joint_tuning", "tune"]
