"""What a benchmark tells: one table for people, one JSON file for comparisons."""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil
from rich.console import Console
from rich.table import Table

PACKAGES: Final = ("onnxruntime", "aiokafka", "grpcio", "sqlalchemy", "uvicorn", "tokenizers")


@dataclass(frozen=True)
class Figure:
    """One measured number. `aim` says what was hoped for, `met` whether it is; none where there is no aim."""

    section: str
    name: str
    value: float
    unit: str
    aim: str = ""
    met: bool | None = None
    remark: str = ""


def at_most(section: str, name: str, value: float, unit: str, limit: float, remark: str = "") -> Figure:
    return Figure(section, name, value, unit, f"<= {limit:g}", value <= limit, remark)


def at_least(section: str, name: str, value: float, unit: str, limit: float, remark: str = "") -> Figure:
    return Figure(section, name, value, unit, f">= {limit:g}", value >= limit, remark)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "load_before": os.getloadavg()[0],
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def show(figures: Iterable[Figure]) -> None:
    table = Table(title="Millrace benchmarks", title_justify="left")
    for column in ("", "figure", "measured", "aim", "", "note"):
        table.add_column(column, justify="right" if column == "measured" else "left")
    section = ""
    for figure in figures:
        verdict = {True: "[green]met", False: "[yellow]not met", None: ""}[figure.met]
        value = f"{figure.value:,.1f} {figure.unit}"
        heading = "" if figure.section == section else figure.section
        table.add_row(heading, figure.name, value, figure.aim, verdict, figure.remark)
        section = figure.section
    Console().print(table)


def keep(figures: Iterable[Figure], facts: dict[str, object], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": facts, "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(document, indent=1) + "\n")
