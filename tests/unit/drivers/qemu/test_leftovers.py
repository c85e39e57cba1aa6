"""What is left of microVMs that are gone, without a QEMU: folders that no microVM stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from support.builders import microvm_spec

from controlplane.drivers.qemu import leftovers
from controlplane.drivers.qemu.command import HostFacts
from controlplane.drivers.qemu.guest import Site
from controlplane.drivers.qemu.layout import Folder
from controlplane.drivers.qemu.quarantine import Quarantine
from controlplane.ports import VMDefinition


@pytest.fixture
def site(tmp_path: Path) -> Site:
    nothing = cast("Any", None)
    (tmp_path / "vms").mkdir()
    return Site(
        instance="nobody-00000000",
        vms=tmp_path / "vms",
        trash=tmp_path / "trash",
        quarantine=Quarantine(tmp_path / "quarantine", tmp_path / "trash", 0),
        images=nothing,
        facts=HostFacts(Path("/bin/false"), "", "tcg", None),
        boot_id="b",
        wake=lambda: None,
        fence=nothing,
    )


def test_what_is_half_deleted_or_half_made_is_told_and_a_microvm_is_not(site: Site) -> None:
    assert (leftovers.of_all(site), leftovers.of(site, "a")) == ([], [])
    vm = VMDefinition(
        cluster_id="c", uid="a", namespace="demo", name="a", epoch=1, generation=1, labels={}, spec=microvm_spec()
    )
    Folder(site.vms, "a").save_definition(vm)
    (site.vms / "b").mkdir()
    (site.trash / "c").mkdir(parents=True)
    assert leftovers.of_all(site) == sorted([f"folder {site.vms / 'b'}", f"folder {site.trash / 'c'}"])
    assert leftovers.of(site, "a") == [f"folder {site.vms / 'a'}"]
    assert leftovers.of(site, "c") == [f"folder {site.trash / 'c'}"]
