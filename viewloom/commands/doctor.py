"""``viewloom doctor``."""

from __future__ import annotations

from dataclasses import dataclass

from viewloom.commands.output import Shown, ShownFlags, started


@dataclass(frozen=True)
class Doctor:
    """Say what this installation can do, and how to get what is missing."""

    shown: ShownFlags = Shown()
    """How much is said."""

    def run(self) -> int:
        """Look at everything that a job may use, and print a line for each."""
        with started("doctor", self.shown):
            from pipeline.jobs.doctor import examine

            findings = examine()
        for finding in findings:
            print(f"  {'ok' if finding.found else '--':<3} {finding.name:<16} {finding.detail}")
        return 0
