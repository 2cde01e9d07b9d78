"""Whatever happens to names, fsck of the store in use finds nothing wrong with what trees show: what it has
not come to yet is no fault."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule, run_state_machine_as_test

from casfs.maintenance.check.fsck import check
from tests.repositories.test_derived_model import Trees, template

__all__ = ["template"]


class CheckedTrees(Trees):
    @rule()
    def check(self) -> None:
        self.kernel.sync()
        report = check(str(self.session.path))
        assert report.in_use is not None
        assert [(problem.kind, problem.detail, problem.paths) for problem in report.problems] == []


def test_fsck_of_a_store_in_use_tells_nothing_of_trees(template: Path, scratch: Path) -> None:
    CheckedTrees.template = template
    CheckedTrees.folder = scratch
    run_state_machine_as_test(
        CheckedTrees,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
