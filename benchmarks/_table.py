"""RESULTS.md from the rows that the benchmarks left: goals first, then every row, then how cost grows.

python benchmarks/_table.py [FOLDER OF ROWS] [FILE]
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from xaitools.files import write_text

HERE = Path(__file__).parent
EXPONENT = 1.1
"""Growth up to here is called linear: what a doubling of a few seconds can tell."""
ABOUT = """# Results of the benchmarks

Written by `make bench` (`benchmarks/_table.py`) from `benchmarks/results/`: do not edit. Peers and ours ran in turn
in one process, and their outputs were compared. A ratio is the peer's processor time over ours, the median of all
turns with its spread; the ratio of the clock on the wall stands beside it, and says little where the load was high.
Peak memory is what a process of its own adds when all is loaded. A row that ran smaller than its workload says so,
and meets no goal.
"""


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """All rows, by name."""
    rows = {}
    for path in sorted(folder.glob("*.json")):
        rows |= json.loads(path.read_text(encoding="utf-8"))
    return rows


def number(value: float) -> str:
    """Three digits.

    >>> number(0.01234), number(3952), number(12.0)
    ('0.0123', '3952', '12')
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(row: dict[str, Any]) -> str:
    low, middle, high = row["value"]
    unit = "times" if row["unit"] == "x" else row["unit"]
    between = f" ({number(low)} to {number(high)})" if row["repeats"] > 1 else ""
    return f"{number(middle)} {unit}{between}"


def reached(goal: dict[str, Any], row: dict[str, Any] | None) -> str:
    """Whether the median meets the goal; a smaller workload cannot tell."""
    if row is None:
        return "not measured"
    middle = row["value"][1]
    met = middle >= goal["at_least"] if "at_least" in goal else middle <= goal["at_most"]
    if row["reduced"]:
        return "smaller: would be met" if met else "smaller: would not be met"
    return "yes" if met else "**no**"


def goal_line(goal: dict[str, Any], row: dict[str, Any] | None) -> str:
    wanted = f"≥ {goal['at_least']}" if "at_least" in goal else f"≤ {goal['at_most']}"
    unit = "times" if goal["unit"] == "x" else goal["unit"]
    found, met = spread(row) if row else "", reached(goal, row)
    reason = "" if met == "yes" else goal.get("in_the_way", "")
    return line(goal["title"], f"{wanted} {unit}", found, met, reason)


def row_line(name: str, row: dict[str, Any]) -> str:
    wall = row.get("wall ratio")
    machine = row["machine"]
    run = f"{row['repeats']} x, load {row.get('load') or machine['load']:.0f}, {machine['date']}"
    return line(
        f"`{name}`",
        "; ".join([row["setting"], *row["reduced"]]),
        spread(row),
        number(wall[1]) if wall else "",
        pairs(row.get("processor seconds") or row.get("processor_seconds") or row.get("seconds")),
        pairs(row.get("memory")),
        row.get("agreement", ""),
        run,
    )


def pairs(values: dict[str, Any] | None) -> str:
    """Numbers by name; of several numbers the smallest."""
    shown = []
    for name, value in (values or {}).items():
        least = min(value) if isinstance(value, list) else value
        shown.append(f"{name} {number(least)}")
    return ", ".join(shown)


def line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def table(header: list[str], lines: list[str]) -> str:
    return "\n".join([line(*header), f"|{'---|' * len(header)}", *lines])


def growth(rows: dict[str, dict[str, Any]], folder: Path) -> str:
    """A sentence and a picture for each quantity."""
    parts = []
    for name in dict.fromkeys(key.split("/")[1] for key in rows):
        sentences = []
        for kind in ("time", "memory"):
            row = rows[f"growth/{name}/{kind}"]
            exponent = row["value"][1]
            word = "worse than linear" if exponent > EXPONENT else "linear or better"
            unit = row["setting"].split("; ")[1]
            at = ", ".join(f"{size}: {number(value)}" for size, value in row["points"].items())
            sentences.append(f"{kind} grows with the power {exponent:.2f}, {word} ({unit} at {at})")
        picture = f"growth_{name}.svg"
        shown = f"\n\n![Cost against {name}]({folder.name}/{picture})" if (folder / picture).exists() else ""
        load = f"Measured once at each size, at a load of {row['machine']['load']:.0f}."
        parts.append(f"**{name.capitalize()}**: {'; '.join(sentences)}. {load}{shown}")
    return "\n\n".join(parts) or "Not measured."


def machines(rows: dict[str, dict[str, Any]]) -> str:
    """Every machine with its libraries once."""
    found = {}
    for row in rows.values():
        one = row["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        text = f"- {one['processor']}, {one['cores']} cores, Python {one['python']}: {versions}"
        found.setdefault(text, set()).add(one["threads"])
    return "\n".join(
        f"{text}; threads {', '.join(sorted(str(count) for count in threads if count))}"
        for text, threads in found.items()
    )


def render(rows: dict[str, dict[str, Any]], goals: list[dict[str, Any]], folder: Path) -> str:
    """The page."""
    growing = {name: row for name, row in rows.items() if name.startswith("growth/")}
    others = [row_line(name, row) for name, row in rows.items() if name not in growing]
    header = ["row", "setting", "value", "wall ratio", "seconds", "peak MiB", "difference of outputs", "run"]
    return "\n\n".join(
        [
            ABOUT.rstrip(),
            "## Goals",
            table(
                ["workload", "goal", "measured", "reached", "what stands in the way"],
                [goal_line(goal, rows.get(goal["row"])) for goal in goals],
            ),
            "## All rows",
            table(header, others),
            "## Growth",
            growth(growing, folder),
            "## Machine",
            machines(rows),
            "",
        ]
    )


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results"
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "RESULTS.md"
    goals = yaml.safe_load((HERE / "goals.yaml").read_text(encoding="utf-8"))
    write_text(target, render(read(folder), goals, folder).rstrip() + "\n")


if __name__ == "__main__":
    main()
