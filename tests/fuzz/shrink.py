"""A long list of steps that ends in a difference, made short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrunk(steps: Sequence[T], fails: Callable[[Sequence[T]], Sequence[T] | None]) -> list[T]:
    """Leave out parts, ever smaller ones, as long as it still fails.

    `fails` gives the steps up to the failure, or None when all went well.
    """
    steps = list(steps)
    size = len(steps) // 2
    while size:
        start, shorter = 0, False
        while start < len(steps):
            failed = fails(steps[:start] + steps[start + size :])
            if failed is not None and len(failed) < len(steps):
                steps, shorter = list(failed), True
            else:
                start += size
        if size > 1 or not shorter:
            size //= 2
    return steps
