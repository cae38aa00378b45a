"""When a suspect is called a shortcut, and in which words."""

from __future__ import annotations

from dataclasses import replace

from circuits.dataset.audit.results import Joint, Suspect, Verdict

MAJORITY = 0.5
"""More of the evidence lies off the object than on it."""


def judged(suspect: Suspect) -> Suspect:
    """A suspect with its verdict and the reason."""
    verdict, reason = _verdict(suspect)
    return replace(suspect, verdict=verdict, reason=reason)


def judged_together(joint: Joint) -> Joint:
    """Units that lie off the object, each of them, with the verdict of all and the reason."""
    count = len(joint.units)
    effect = _effect(joint, "them")
    if effect:
        return replace(joint, verdict="shortcut", reason=f"these {count} units lie off the object, and {effect}")
    reason = f"not proven: with these {count} units nothing changes more than with as many others that change as much"
    return replace(joint, verdict="no", reason=reason)


def _verdict(s: Suspect) -> tuple[Verdict, str]:
    effect = _effect(s, "it")
    separates = s.group_auc is not None and s.group_auc.low > MAJORITY
    if s.off_object is not None and s.off_object.low <= MAJORITY:
        return "no", f"not a shortcut because {_percent(1 - s.off_object.value)} of its evidence lies on the object"
    if s.off_object is None and not separates and s.off <= MAJORITY:
        return "no", "not proven: its evidence lies in the middle or where that of the class's other units does"
    if not effect:
        return "no", "not proven: nothing changes more than with other units that are as active"
    if s.off_object is not None:
        return "shortcut", f"{_percent(s.off_object.value)} of its evidence lies off the object, and {effect}"
    if separates:
        return "shortcut", f"it tells the group {s.group} apart (AUC {s.group_auc.value:.2f}), and {effect}"  # type: ignore[union-attr]
    return "possible", f"{effect}; whether its evidence lies on the object is not known without masks or groups"


def _effect(s: Suspect | Joint, it: str) -> str:
    """The effects that exceed the control's 95 %, in words; empty without."""
    words = []
    if s.removal.beyond and s.removal.change.value < 0:
        words.append(f"without {it} {_percent(-s.removal.change.value)} of the images of {s.class_name} are lost")
    if s.insertion.beyond and s.insertion.change.value > 0:
        words.append(f"with {it} {_percent(s.insertion.change.value)} more images of other classes are called so")
    if s.background is not None and s.background.beyond and s.background.change.value < 0:
        words.append(
            f"without {it} {_percent(-s.background.change.value)} fewer objects of other classes are called "
            f"{s.class_name} before its backgrounds"
        )
    return " and ".join(words)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
