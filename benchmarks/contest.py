"""The parts that the benchmarks share: programs in fresh processes, in turn; medians and ratios of their figures."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bertlora.model.machine import speed

Result = dict[str, Any]


def contest_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--log", default="speed.jsonl", help="JSONL file with the results; they are not measured again")
    return parser


def interleaved(contestants: Mapping[str, Sequence[str]], rounds: int, log: Path, key: Result) -> list[Result]:
    """Runs every program once per round, in turn, and returns what they printed.

    Args:
        contestants: name → command; its last line of output is a JSON object.
        rounds: the number of rounds.
        log: a JSONL file; each result is added to it at once, and a result that it has is not measured again.
        key: identifies this benchmark in the log.

    Returns:
        One object per run: `name`, `round`, the key, the printed figures, `wall_s`, `cpu_s` and `peak_mib` of the
        process.
    """
    found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for number in range(rounds):
        for name, command in contestants.items():
            own = key | {"name": name, "round": number}
            if any(own.items() <= result.items() for result in found):
                continue
            found.append(measured(command) | own)
            with log.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
            print(f"round {number + 1}: {name}", file=sys.stderr)
    return [result for result in found if key.items() <= result.items() and result["name"] in contestants]


def measured(command: Sequence[str]) -> Result:
    """Returns what a command prints, its wall and processor time in seconds, and its peak resident memory in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    said, complaint = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}\n{complaint[-2000:]}")
    figures: Result = json.loads(said.strip().splitlines()[-1])
    took = {"wall_s": round(time.perf_counter() - began, 2), "cpu_s": round(usage.ru_utime + usage.ru_stime, 2)}
    return figures | took | {"peak_mib": usage.ru_maxrss // 1024}


def resident_mib(pid: int | str = "self") -> float:
    """Returns the memory that a process holds, in MiB; 0 if it has ended."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if pages else 0.0


def median(results: list[Result], name: str, value: Callable[[Result], float]) -> float:
    """Returns the median over rounds of one program's figure."""
    return statistics.median(value(r) for r in results if r["name"] == name)


def ratios(results: list[Result], name: str, rival: str, value: Callable[[Result], float]) -> str:
    """Returns one program's figure divided by the rival's of the same round: median, lowest and highest."""
    theirs = {r["round"]: value(r) for r in results if r["name"] == rival}
    found = sorted(value(r) / theirs[r["round"]] for r in results if r["name"] == name)
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def machine() -> str:
    """Returns what the figures depend on: processor, threads, speed of the matrix product, versions, date."""
    model = next((line for line in _cpu_lines() if line.startswith("model name")), platform.processor())
    features = [name for name in ("amx_bf16", "avx512_bf16", "avx2") if any(f" {name}" in s for s in _cpu_lines())]
    rates = ", ".join(f"{speed(p) / 1e12:.2f} TFLOP/s in {p}" for p in ("bf16", "fp32"))
    kind = f"{model.partition(':')[2].strip()}, {features[0] if features else 'no wide vectors'}"
    return f"{time.strftime('%Y-%m-%d')}; {kind}; {torch.get_num_threads()} threads; {rates}; torch {torch.__version__}"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table, figures to the right."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(['---'] + ['---:'] * (len(head) - 1))}|"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
