"""Known answers: planted ones that need nothing, the scenes' own, and published ones for published weights."""

from __future__ import annotations

from apps.cli.verify.checks import SUITES as SUITES, Check as Check, Options as Options, Suite as Suite
