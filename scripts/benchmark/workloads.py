"""All workloads, in the order they run and are shown in; importing a module registers what it holds."""

from . import small_files, trees, large_file, hot_files, repositories, digests, snapshots  # noqa: F401, I001
from .workload import WORKLOADS, Drop, Goal, Workload

__all__ = ["WORKLOADS", "Drop", "Goal", "Workload"]
