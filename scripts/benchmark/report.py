"""What is made of the samples: the summary that becomes JSON, the table and the chart."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .rounds import Results, Series, Target
from .workloads import WORKLOADS, Goal

PLAIN = "plain"
PEERS = {workload.goal.target for workload in WORKLOADS.values() if workload.goal} - {None}

Summary = dict[str, Any]  # exactly what --json writes


def machine() -> dict[str, object]:
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "kernel": platform.release(),
        "cpu": cpus[0].partition(": ")[2] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg(),
    }


def file_system(path: str) -> str:
    """The type of the file system a path lies on, from /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        mountpoint = fields[4].encode().decode("unicode_escape")
        inside = (
            os.path.realpath(path).startswith(mountpoint.rstrip("/") + "/")
            or os.path.realpath(path) == mountpoint
        )
        if inside and len(mountpoint) >= len(best):
            best, kind = mountpoint, fields[fields.index("-") + 1]
    return kind


def default_base(names: Sequence[str]) -> str:
    return next((name for name in ("bindfs", PLAIN) if name in names), names[0])


def ratio(series: Series, base: Series) -> dict[str, float] | None:
    """How many times as fast as the base: median, min and max of the ratios within each round.

    `best` compares the best rates of all rounds: on a machine with much other load, which only ever makes a
    trial slower, these say more than medians.
    """
    rates = {sample.round: sample.rate for sample in base.samples}
    ratios = [sample.rate / rates[sample.round] for sample in series.samples if sample.round in rates]
    if not ratios:
        return None
    best = max(sample.rate for sample in series.samples) / max(rates.values())
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios), "best": best}


def describe(series: Series) -> Summary:
    """Rates are in units of the workload per second, CPU times in microseconds per unit."""
    summary: Summary = {
        "error": series.error,
        "samples": [dataclasses.asdict(sample) for sample in series.samples],
    }
    if series.samples:
        rates = [sample.rate for sample in series.samples]
        middle = median(rates)
        summary |= {
            "median": middle,
            "mad": median(abs(rate - middle) for rate in rates),
            "min": min(rates),
            "max": max(rates),
            "client_cpu_us": 1e6 * median(sample.client_cpu / sample.amount for sample in series.samples),
        }
        served = [
            sample.daemon_cpu / sample.amount for sample in series.samples if sample.daemon_cpu is not None
        ]
        if served:
            summary["daemon_cpu_us"] = 1e6 * median(served)
        summary["figures"] = {
            figure: median(sample.figures[figure] for sample in series.samples if figure in sample.figures)
            for figure in dict.fromkeys(figure for sample in series.samples for figure in sample.figures)
        }
    return summary


def toward(goal: Goal | None, name: str, workload: str, results: Results) -> Summary | None:
    """How far a target is from the goal of a workload; None when there is none or the peer did not run."""
    if goal is None or name in PEERS:
        return None
    peers = results.series.get(goal.workload or workload, {})
    peer = peers.get(goal.target or name)
    reached = ratio(results.series[workload][name], peer) if peer else None
    return reached and {"ratio": reached, "met": reached["median"] >= goal.ratio}


def summarize(
    results: Results, targets: Sequence[Target], *, base: str, rounds: int, scale: float
) -> Summary:
    names = [target.name for target in targets]
    references = [base] + ([PLAIN] if PLAIN in names and base != PLAIN else [])
    workloads: Summary = {}
    for name, series in results.series.items():
        workloads[name] = {
            "description": WORKLOADS[name].description,
            "unit": f"{WORKLOADS[name].unit}/s",
            "goal": str(goal) if (goal := WORKLOADS[name].goal) else None,
            "wanted": goal.ratio if goal else None,
            "limits": dict(WORKLOADS[name].limits),
            "skipped": results.skipped.get(name),
            "targets": {
                target: describe(one)
                | {"ratio": {other: ratio(one, series[other]) for other in references if other != target}}
                | {"goal": toward(goal, target, name, results)}
                for target, one in series.items()
            },
        }
    return {
        "machine": machine(),
        "rounds": rounds,
        "scale": scale,
        "load_before": results.load_before,
        "interrupted": results.interrupted,
        "base": base,
        "targets": {
            target.name: {
                "path": target.path,
                "file_system": file_system(target.path),
                "daemon": target.daemon,
                "features": dict(target.features),
            }
            for target in targets
        },
        "workloads": workloads,
    }


# Table ---------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def ratio_columns(summary: Summary) -> list[tuple[str, str]]:
    """(target, reference) of each ratio worth showing: everything against the base, then against plain."""
    names, base = list(summary["targets"]), summary["base"]
    columns = [(name, base) for name in names if name not in (base, PLAIN)]
    if PLAIN in names:
        columns += [(name, PLAIN) for name in names if name != PLAIN and (name, PLAIN) not in columns]
    return columns


def rate_cell(target: Summary, *, best: bool) -> str:
    if target["error"] is not None:
        return "failed"
    if "median" not in target:
        return "-"
    if best:
        return number(target["max"])
    return f"{number(target['median'])} ±{target['mad'] / target['median']:.0%}"


def cpu_cell(target: Summary) -> str:
    if "median" not in target:
        return "-"
    served = f"+{number(target['daemon_cpu_us'])}" if "daemon_cpu_us" in target else ""
    return f"{number(target['client_cpu_us'])}{served}"


def goal_cell(target: Summary, wanted: float, *, best: bool) -> str:
    if target["goal"] is None:
        return "-"
    reached = target["goal"]["ratio"]["best" if best else "median"]
    return f"{number(reached)}x {'met' if reached >= wanted else 'missed':6}"


def table(summary: Summary, *, cpu: bool, best: bool, goals: bool) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of the table; skipped workloads are not in it.

    With `goals`, what each target reached takes the place of the ratios to the base.
    """
    names = list(summary["targets"])
    ratios = [] if goals else ratio_columns(summary)
    judged = [name for name in names if goals and name not in PEERS]
    headings = ["workload", "per second", *names, *(f"{name}/{reference}" for name, reference in ratios)]
    if goals:
        headings += ["goal", *(f"{name} reached" for name in judged)]
    if cpu:
        headings += [f"{name} µs CPU" for name in names]
    rows = []
    for workload, one in summary["workloads"].items():
        if one["skipped"]:
            continue
        targets = one["targets"]
        row = [
            workload,
            one["unit"].removesuffix("/s"),
            *(rate_cell(targets[name], best=best) for name in names),
        ]
        for name, reference in ratios:
            value = targets[name]["ratio"][reference]
            row.append(f"{number(value['best' if best else 'median'])}x" if value else "-")
        if goals:
            row += [
                one["goal"] or "-",
                *(goal_cell(targets[name], one["wanted"], best=best) for name in judged),
            ]
        if cpu:
            row += [cpu_cell(targets[name]) for name in names]
        rows.append(row)
    return headings, rows


def verdicts(summary: Summary) -> Iterator[str]:
    """How many goals each target met, judged by the medians whatever the table shows."""
    for name in summary["targets"]:
        reached = {
            workload: one["targets"][name]["goal"]["met"]
            for workload, one in summary["workloads"].items()
            if one["targets"][name]["goal"]
        }
        missed = [workload for workload, met in reached.items() if not met]
        if reached:
            which = f"; missed: {', '.join(missed)}" if missed else ""
            yield f"{name} met {len(reached) - len(missed)} of {len(reached)} goals by medians{which}."


def figures(summary: Summary) -> Iterator[str]:
    """What workloads measured besides their rates, medians too, and whether that is within their limits."""
    for workload, one in summary["workloads"].items():
        for name, target in one["targets"].items():
            cells = []
            for figure, value in target.get("figures", {}).items():
                limit = one["limits"].get(figure) if name not in PEERS else None
                verdict = f" ({'within' if value <= limit else 'above'} {limit:g})" if limit else ""
                cells.append(f"{figure} {number(value)}{verdict}")
            if cells:
                yield f"{workload} on {name}: {', '.join(cells)}."


def notes(summary: Summary, *, cpu: bool, best: bool, goals: bool) -> list[str]:
    """What has to be said beside the table."""
    size = f"{summary['rounds']} interleaved rounds at scale {summary['scale']:g}"
    if best:
        lines = [f"Best of {size}, and ratios of these; more is faster."]
    else:
        lines = [
            f"Medians of {size}, ± median absolute deviation.",
            "Ratios: medians of the ratios within a round; more is faster.",
        ]
    if goals:
        lines += verdicts(summary)
    lines += figures(summary)
    for name, target in summary["targets"].items():
        if target["features"]:
            stated = ", ".join(f"{feature} {state}" for feature, state in target["features"].items())
            lines.append(f"{name}: {stated}.")
    before, after = summary["load_before"], summary["machine"]["load_average"][0]
    cores = summary["machine"]["cores"]
    if max(before, after) > 1.5 * cores:
        load = f"load {before:.1f} before, {after:.1f} after, on {cores} cores"
        lines.append(f"The machine is busy ({load}); see --best and --cpu.")
    if cpu:
        lines.append("CPU: microseconds per unit of work, client + daemon (where its pid is known).")
    reasons: dict[str, list[str]] = {}
    for workload, one in summary["workloads"].items():
        if one["skipped"]:
            reasons.setdefault(one["skipped"], []).append(workload)
        for name, target in one["targets"].items():
            if target["error"] is not None:
                lines.append(f"{workload} failed on {name}: {target['error']}")
    lines += [f"Skipped, {reason}: {', '.join(workloads)}" for reason, workloads in reasons.items()]
    if summary["interrupted"]:
        lines.append("Interrupted: not all rounds are in this.")
    return lines


def print_table(headings: list[str], rows: list[list[str]], text_columns: int = 2) -> None:
    """With rich on a terminal, in plain aligned columns elsewhere; the first columns are text."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            grid = Table(header_style="bold", row_styles=("", "dim"))
            for position, heading in enumerate(headings):
                grid.add_column(heading, justify="left" if position < text_columns else "right", no_wrap=True)
            for row in rows:
                grid.add_row(*row)
            Console().print(grid)
            return
    widths = [max(len(line[position]) for line in (headings, *rows)) for position in range(len(headings))]
    for line in (headings, *rows):
        cells = [
            cell.ljust(width) if position < text_columns else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


# Chart ---------------------------------------------------------------------------------------------------


def draw_chart(summary: Summary, path: str) -> None:
    """A PNG with the ratio of each target to the base, one group of bars per workload, on a logarithmic axis.

    Raises ImportError without matplotlib, OSError when the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    base = summary["base"]
    names = [name for name in summary["targets"] if name != base]
    groups = [
        (workload, [one["targets"][name]["ratio"][base] for name in names])
        for workload, one in summary["workloads"].items()
        if any(one["targets"][name]["ratio"][base] for name in names)
    ]
    thickness = 0.8 / max(1, len(names))
    figure, axes = pyplot.subplots(figsize=(10, 1.6 + (0.16 + 0.2 * len(names)) * max(1, len(groups))))
    for position, name in enumerate(names):
        rows = [(row, ratios[position]) for row, (_, ratios) in enumerate(groups) if ratios[position]]
        places = [row + (position - (len(names) - 1) / 2) * thickness for row, _ in rows]
        values = [ratio["median"] for _, ratio in rows]
        spans = [[v["median"] - v["min"] for _, v in rows], [v["max"] - v["median"] for _, v in rows]]
        colour = f"C{position}"
        axes.barh(places, [value - 1 for value in values], thickness * 0.9, left=1, color=colour, label=name)
        axes.errorbar(values, places, xerr=spans, fmt="none", ecolor="0.35", elinewidth=0.8, capsize=1.5)
        for place, (_, shown) in zip(places, rows, strict=True):
            right = shown["median"] >= 1
            axes.annotate(
                f"{number(shown['median'])}x",
                (shown["max"] if right else shown["min"], place),
                xytext=(4 if right else -4, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=7.5,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.margins(x=0.12, y=0.01)
    axes.axvline(1, color="0.2", linewidth=1)
    axes.set_yticks(range(len(groups)), [workload for workload, _ in groups])
    axes.invert_yaxis()
    axes.grid(axis="x", color="0.88")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(f"Speed relative to {base} (right of the line is faster)", loc="left", fontsize=12)
    axes.set_xlabel(
        f"median of {summary['rounds']} interleaved rounds, whiskers min to max; scale {summary['scale']:g}; "
        f"Linux {summary['machine']['kernel']}, {summary['machine']['cores']} cores",
        fontsize=8,
    )
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=max(1, len(names)), frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
