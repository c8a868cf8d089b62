"""What a doctor's examination found, for people and as JSON."""

import math
import platform
from dataclasses import asdict, dataclass, field
from typing import Any

import alexnet
from alexnet.units import format_duration

STATUSES = ("ok", "note", "problem", "not tried")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: What it belongs to: `installed`, a backend, or `machine`.
        name: What was looked at.
        status: One of `STATUSES`. A note changes nothing that works; a problem makes something wrong or impossible.
        found: What was found, or why it was not tried.
        advice: What to do, a sentence; None where there is nothing to do.
        values: The numbers behind `found`, for programs.
    """

    group: str
    name: str
    status: str
    found: str
    advice: str | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.status not in STATUSES:
            raise ValueError(f"status: received {self.status!r}; allowed: {', '.join(STATUSES)}")


@dataclass(frozen=True)
class Report:
    """All checks, a group after the other."""

    checks: list[Check]
    seconds: float

    def count(self, status: str) -> int:
        return sum(check.status == status for check in self.checks)

    @property
    def summary(self) -> str:
        """One sentence: `All is well.` or `2 problems, 1 note.`, and how much was not tried."""
        numbers = [(self.count("problem"), "problem"), (self.count("note"), "note")]
        words = [f"{number} {name}{'s' * (number != 1)}" for number, name in numbers if number]
        untried = f" {self.count('not tried')} not tried." if self.count("not tried") else ""
        return (f"{', '.join(words)}." if words else "All is well.") + untried

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it; docs/library.md lists the keys."""
        return {
            "alexnet": alexnet.__version__,
            "system": f"{platform.system()} {platform.machine()}",
            "summary": self.summary,
            "problems": self.count("problem"),
            "notes": self.count("note"),
            "not_tried": self.count("not tried"),
            "seconds": round(self.seconds, 1),
            "checks": [_finite(asdict(check)) for check in self.checks],
        }

    def print(self, console: Any) -> None:
        """Print a table, a line of advice for each check that has some, and the summary."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("", "status", "found"):
            table.add_column(title, overflow="fold")
        group = None
        styles = {"problem": "red", "note": "yellow"}
        for check in self.checks:
            if check.group != group:
                if group is not None:
                    table.add_section()
                group = check.group
                table.add_row(Text(group, style="bold"))
            row = (Text(f"  {check.name}"), Text(check.status, no_wrap=True), Text(check.found))
            table.add_row(*row, style=styles.get(check.status))
        console.print(table)
        for check in self.checks:
            if check.advice:
                console.print(Text(f"{check.group}, {check.name}: {check.advice}"), soft_wrap=True)
        console.print(Text(f"{self.summary} ({format_duration(self.seconds)})"), soft_wrap=True)


def _finite(value):
    """Without NaN and infinity, which JSON does not have: they become text."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
