"""Threads: a container's quota is kept, and the user's own word goes before it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contest import resident_mib

from bertlora.model import machine
from bertlora.model.machine import cores_allowed, limit_threads, out_of_memory


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000", 1), ("400000 100000\n", 4), ("50000 100000", 1), ("200000 50000", 4), ("399999 100000", 3)],
)
def test_a_quota_comes_to_whole_cores_and_at_least_one(quota: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert cores_allowed(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize("quota", ["max 100000", "max 100000\n", "", "none of this"])
def test_without_a_quota_all_cores_are_allowed(quota: str, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert cores_allowed(tmp_path / "cpu.max") == os.cpu_count()


def test_without_a_control_group_all_cores_are_allowed(tmp_path: Path) -> None:
    assert cores_allowed(tmp_path / "missing") == os.cpu_count()


@pytest.mark.parametrize(("said", "expected"), [(None, [2]), ("3", [])])
def test_threads_are_the_quotas_unless_the_user_says_otherwise(
    said: str | None, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("250000 100000")
    set_to: list[int] = []
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    limit_threads.__wrapped__()  # past the cache, which lets it run once a process
    assert set_to == expected


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_otherwise(given: dict[str, str], spins: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, bertlora; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment | given)
    assert done.stdout.strip() == spins


def test_out_of_memory_is_distinguished_from_other_errors() -> None:
    ran_out = (
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    )
    assert out_of_memory(RuntimeError(ran_out))
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.skipif(machine._malloc_trim() is None, reason="another C library than glibc")
def test_freed_memory_goes_back_to_the_system_when_it_is_due_or_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "GIVE_BACK_S", 3600.0)
    machine.give_back_memory(at_once=True)
    last, full = fill_and_free()
    machine.give_back_memory()
    assert full - resident_mib() < 20
    # How much goes back decides when the next is due: 80 MiB at this rate in a day, or at once.
    for rate, due in ((1e3, False), (1e15, True)):
        monkeypatch.setattr(machine, "GIVE_BACK_S", 0.0)
        monkeypatch.setattr(machine, "GIVE_BACK_RATE", rate)
        machine.give_back_memory(at_once=True)
        assert full - resident_mib() > 60
        last, full = fill_and_free()
        machine.give_back_memory()
        assert (full - resident_mib() > 60) == due
    del last


def fill_and_free() -> tuple[torch.Tensor, float]:
    """Fills and frees 80 MiB. Returns a block, which keeps glibc from shrinking its heap, and the MiB held before."""
    blocks = [torch.ones(10_000 + i) for i in range(2_000)]  # each too small for a mapping of its own
    return blocks[-1], resident_mib()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's advice to madvise")
def test_paged_out_memory_is_read_again_from_its_file_and_what_was_written_stays(tmp_path: Path) -> None:
    numbers = torch.arange(4_000_000, dtype=torch.float32)
    numbers.numpy().tofile(tmp_path / "numbers")
    mapped = torch.from_file(str(tmp_path / "numbers"), shared=False, size=len(numbers))
    assert mapped.sum() == numbers.sum()
    mapped[5] = numbers[5] = -1
    before = resident_mib(os.getpid())
    machine.page_out(mapped)
    assert resident_mib(os.getpid()) < before - 10
    assert torch.equal(mapped, numbers)
    machine.page_out(torch.empty(0))
