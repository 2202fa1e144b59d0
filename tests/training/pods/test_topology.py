"""Pods that are not there: which exist, and what their links carry."""

import types

import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.training.pods.plan import meshes
from phenaki_jax.training.pods.topology import topology_of


def _devices(*coords: tuple[int, ...], slice_index: int = 0) -> list[types.SimpleNamespace]:
    return [types.SimpleNamespace(coords=each, slice_index=slice_index) for each in coords]


def test_a_topology_is_a_chip_and_a_slice() -> None:
    found = topology_of("v5p:4x4x8", slices=2)
    assert (found.chips, found.name) == (256, "v5p:4x4x8 x 2")


@pytest.mark.parametrize(
    ("name", "slices", "told"),
    [
        (
            "v3:2x2",
            1,
            "found topology 'v3:2x2', expected a chip and a slice, of v4, v5e, v5p, v6e, tpu7x: as v5p:4x4x4",
        ),
        ("v6e:3x3", 1, "found topology 'v6e:3x3', expected one that exists: v6e has 1x1, 2x2, 2x4"),
        ("v5p", 1, "found topology 'v5p', expected one that exists: v5p has 2x2x1"),
        ("v5p:8x4x4", 1, "v5p has 2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4, 4x4x8"),
        ("v5p:4x4x4", 0, "found 0 slices, expected at least 1"),
    ],
)
def test_what_does_not_exist_is_refused(name: str, slices: int, told: str) -> None:
    with pytest.raises(UserError) as raised:
        topology_of(name, slices)
    assert told in str(raised.value)


def test_links_carry_both_ways_around_a_ring_and_one_way_along_a_line() -> None:
    torus, plane = topology_of("v5p:4x4x4"), topology_of("v6e:8x8")
    column = _devices(*((0, 0, z) for z in range(4)))
    assert torus.bandwidth(column) == 2 * 90e9
    # Of a side only a part: no ring.
    assert torus.bandwidth(column[:2]) == 90e9
    everything = _devices(*((x, y, z) for x in range(4) for y in range(4) for z in range(4)))
    assert torus.bandwidth(everything) == 6 * 90e9
    # Sides of 8 are not closed where 16 are.
    assert plane.bandwidth(_devices(*((x, y) for x in range(8) for y in range(8)))) == 2 * 90e9


def test_slices_share_their_hosts_network_and_the_devices_of_a_chip_its_memory() -> None:
    topology = topology_of("v5p:4x4x4", slices=2)
    assert topology.bandwidth([*_devices((0, 0, 0)), *_devices((0, 0, 0), slice_index=1)]) == 6.25e9
    assert topology_of("tpu7x:4x4x4").bandwidth(_devices((0, 0, 0), (0, 0, 0))) == 7380e9 / 2


def test_parameters_are_cut_into_64_parts_at_most_and_slices_hold_copies() -> None:
    found = {mesh.rules: (mesh.replica, mesh.model) for mesh in meshes(topology_of("v5p:8x8x8", slices=2))}
    assert found == {
        "data_parallel": (2, 1),
        "fully_sharded": (16, 1),
        "fully_sharded_tensor_parallel": (16, 4),
        "fully_sharded_sequence_parallel": (16, 4),
    }
