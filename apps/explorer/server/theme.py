"""The theme, light and dark, as options of the server. Orange and blue are used for signs only."""

from __future__ import annotations

from typing import Any

THEME: dict[str, Any] = {
    "theme.baseFontSize": 15,
    "theme.baseRadius": "6px",
    "theme.showWidgetBorder": True,
    "theme.headingFontWeights": [700, 650, 650, 650, 600, 600],
    "theme.light.primaryColor": "#4A453D",
    "theme.light.backgroundColor": "#FBFAF7",
    "theme.light.secondaryBackgroundColor": "#F1EDE5",
    "theme.light.textColor": "#1D1C1A",
    "theme.light.borderColor": "#DDD8CF",
    "theme.light.linkColor": "#1F6FB2",
    "theme.dark.primaryColor": "#7A7163",
    "theme.dark.backgroundColor": "#151413",
    "theme.dark.secondaryBackgroundColor": "#23211E",
    "theme.dark.textColor": "#ECE8E1",
    "theme.dark.borderColor": "#3A3733",
    "theme.dark.linkColor": "#6CB0EA",
}
