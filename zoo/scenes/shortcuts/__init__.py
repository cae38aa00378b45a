"""Scenes with planted shortcuts, and small networks that learned them: a benchmark of audits with a known answer."""

from zoo.scenes.shortcuts.cues import CUES
from zoo.scenes.shortcuts.generate import CLASSES, STATES, Shortcut, ShortcutScene, scenes, shortcut

__all__ = ["CLASSES", "CUES", "STATES", "Shortcut", "ShortcutScene", "scenes", "shortcut"]
