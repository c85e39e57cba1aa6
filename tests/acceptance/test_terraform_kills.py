"""A short part of `make terraform-kills`: two kills at random points.

`test_crash_safety` has every victim, at chosen points.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from acceptance.terraform.runner import Flavor, Terraform, has_path_terraform
from kills.rounds import Rounds, fleet

from controlplane.cli.dev.cluster import DevCluster

pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <ssl\.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)


def test_what_is_killed_in_the_middle_is_made_whole_by_the_next_apply(
    cluster: DevCluster, mirror: Path, tmp_path: Path
) -> None:
    flavor: Flavor = "path" if has_path_terraform() else "lib"
    tf = Terraform(flavor, tmp_path, {**cluster.layout.environment, "TF_CLI_CONFIG_FILE": str(mirror)})
    rounds = Rounds(cluster, tf)
    rounds.prepare(0)
    played = [rounds.play(0, "terraform"), rounds.play(1, "leader")]
    assert [each.microvms for each in played] == [len(fleet(0)), len(fleet(1))]
    assert not all(each.late for each in played)
    tf.destroy()


def test_a_round_follows_from_its_number() -> None:
    assert fleet(7) == fleet(7)
    assert len({str(fleet(number)) for number in range(50)}) > 45
    assert fleet(-1) == {}
