"""What is read from a compiled program, against what can be worked out by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from phenaki_jax.training.pods.hlo import Collective, Program

LOOP = """
HloModule step

%body (state: (s32[], f32[4,5], f32[5,5])) -> (s32[], f32[4,5], f32[5,5]) {
  %state = (s32[], f32[4,5]{1,0}, f32[5,5]{1,0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%count, %one)
  %left = f32[4,5]{1,0} get-tuple-element(%state), index=1
  %right = f32[5,5]{1,0} get-tuple-element(%state), index=2
  %product = f32[4,5]{1,0} dot(%left, %right), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %out = (s32[], f32[4,5]{1,0}, f32[5,5]{1,0}) tuple(%next, %product, %right)
}

%condition (state.1: (s32[], f32[4,5], f32[5,5])) -> pred[] {
  %state.1 = (s32[], f32[4,5]{1,0}, f32[5,5]{1,0}) parameter(0)
  %count.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(7)
  ROOT %less = pred[] compare(%count.1, %limit), direction=LT
}

ENTRY %main (begin: f32[4,5], kernel: f32[5,5]) -> f32[4,5] {
  %begin = f32[4,5]{1,0} parameter(0)
  %kernel = f32[5,5]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %init = (s32[], f32[4,5]{1,0}, f32[5,5]{1,0}) tuple(%zero, %begin, %kernel)
  %loop = (s32[], f32[4,5]{1,0}, f32[5,5]{1,0}) while(%init), condition=%condition, body=%body
  ROOT %result = f32[4,5]{1,0} get-tuple-element(%loop), index=1
}
"""


def _entry(*lines: str, before: str = "") -> Program:
    return Program(f"HloModule step\n{before}\nENTRY %main (a: f32[1]) -> f32[1] {{\n" + "\n".join(lines) + "\n}\n")


def test_what_a_loop_does_counts_as_often_as_it_turns() -> None:
    cost = Program(LOOP).cost
    assert cost.flops == 7 * 2 * 4 * 5 * 5
    # The product reads 20 and 25 numbers and writes 20; the counter and what is compared are read and written too.
    assert cost.memory_bytes == 7 * 4 * (20 + 25 + 20 + 3)


def test_padding_of_a_convolution_is_no_work() -> None:
    """A kernel of 3 over 4 places with one of padding at each end meets 2 + 3 + 3 + 2 of them, along both sides."""
    program = _entry(
        "%a = f32[2,4,4,3]{3,2,1,0} parameter(0)",
        "%k = f32[3,3,3,5]{3,2,1,0} parameter(1)",
        "ROOT %c = f32[2,4,4,5]{3,2,1,0} convolution(%a, %k), window={size=3x3 pad=1_1x1_1}, "
        "dim_labels=b01f_01io->b01f",
    )
    assert program.cost.flops == 2 * 2 * 5 * 3 * 10 * 10


def test_tiles_are_filled_up_in_memory() -> None:
    """Tiles of 8 x 128: an array of 5 x 100 lies in one of them."""
    program = _entry(
        "%a = f32[5,100]{1,0:T(8,128)} parameter(0)",
        "ROOT %b = f32[5,100]{1,0:T(8,128)} negate(%a)",
    )
    assert program.cost.memory_bytes == 2 * 4 * 8 * 128


def test_of_what_a_fusion_slices_only_the_slice_is_read() -> None:
    before = """
%fused (whole: f32[100,8], at: s32[]) -> f32[1,8] {
  %whole = f32[100,8]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  %part = f32[1,8]{1,0} dynamic-slice(%whole, %at, %zero), dynamic_slice_sizes={1,8}
  ROOT %negative = f32[1,8]{1,0} negate(%part)
}
"""
    program = _entry(
        "%a = f32[100,8]{1,0} parameter(0)",
        "%i = s32[] parameter(1)",
        "ROOT %f = f32[1,8]{1,0} fusion(%a, %i), kind=kLoop, calls=%fused",
        before=before,
    )
    # Eight numbers in, the place of the slice, eight numbers out.
    assert program.cost.memory_bytes == 4 * (8 + 1 + 8)


@pytest.mark.parametrize(
    ("groups", "members"),
    [
        ("{{0,2},{1,3}}", (0, 2)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
        ("[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("mesh['replica'=1,'data'=2,'model'=4] {'data'}", (0, 4)),
    ],
)
def test_who_takes_part_in_a_collective_is_read_in_every_form(groups: str, members: tuple[int, ...]) -> None:
    program = _entry(
        "%a = f32[10]{0} parameter(0)",
        f"ROOT %r = f32[10]{{0}} all-reduce(%a), replica_groups={groups}, to_apply=%add",
    )
    assert dict(program.cost.collectives) == {Collective("all-reduce", members, overlaps=False): 40.0}


def test_a_gather_that_is_begun_early_moves_what_it_gives() -> None:
    """Its type names what goes in too; without groups all devices take part, whose number may stand far behind."""
    program = Program(
        f"HloModule step, allow_spmd_sharding_propagation_to_output={{{'true,' * 1000}}}, num_partitions=4\n"
        "ENTRY %main (a: f32[10]) -> f32[40] {\n"
        "%a = f32[10]{0} parameter(0)\n"
        "%s = (f32[10]{0}, f32[40]{0}) all-gather-start(%a), replica_groups={}, dimensions={0}\n"
        "ROOT %d = f32[40]{0} all-gather-done(%s)\n}\n"
    )
    assert dict(program.cost.collectives) == {Collective("all-gather", (0, 1, 2, 3), overlaps=True): 160.0}


@pytest.mark.parametrize(
    ("slices", "kind", "members", "size"),
    [
        ("1,2", "ALL_REDUCE", (0, 4), 40.0),
        ("0:3", "ALL_REDUCE", (0, 4, 8, 12), 40.0),
        ("0,1", "ALL_GATHER", (0, 4), 80.0),
    ],
)
def test_what_hosts_do_between_slices_is_a_collective(
    slices: str, kind: str, members: tuple[int, ...], size: float
) -> None:
    """The program of a slice sends ten numbers to its host, and receives what came of those of all slices."""
    told = f'_xla_megascale_target="{{{slices}}}x{{0:3}}",_xla_megascale_transfer_type="{kind}"'
    program = Program(
        "HloModule step, num_partitions=4\nENTRY %main (a: f32[10]) -> f32[10] {\n"
        "%a = f32[10]{0} parameter(0)\n"
        "%t = token[] after-all()\n"
        f"%s = (f32[10]{{0}}, u32[], token[]) send(%a, %t), channel_id=1, frontend_attributes={{{told}}}\n"
        f"%r = (f32[10]{{0}}, u32[], token[]) recv(%t), channel_id=2, frontend_attributes={{{told}}}\n"
        "%d = (f32[10]{0}, token[]) recv-done(%r), channel_id=2\n"
        "ROOT %g = f32[10]{0} get-tuple-element(%d), index=0\n}\n"
    )
    collective = Collective(kind.lower().replace("_", "-"), members, overlaps=True)
    assert dict(program.cost.collectives) == {collective: size}
    # Once out of the memory, and once into it.
    assert program.cost.memory_bytes == 80


def test_bytes_that_a_device_has_to_send() -> None:
    """Around a ring of four: three quarters of the whole; to reduce and tell all, twice that."""
    members = (0, 1, 2, 3)
    sent = {kind: Collective(kind, members, False).sent(400) for kind in ("all-gather", "reduce-scatter", "all-reduce")}
    assert sent == {"all-gather": 300, "reduce-scatter": 300, "all-reduce": 600}
    assert Collective("collective-permute", (0, 1), False).sent(400) == 400


def test_the_collectives_of_a_program_of_this_machine_are_found() -> None:
    mesh = jax.make_mesh((4,), ("data",))
    rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    arguments = (
        jax.ShapeDtypeStruct((8, 6), jnp.float32, sharding=rows),
        jax.ShapeDtypeStruct((6, 3), jnp.float32, sharding=whole),
    )
    gradient = jax.jit(jax.grad(lambda kernel, x: jnp.sum((x @ kernel) ** 2)), out_shardings=whole)
    cost = Program(gradient.lower(arguments[1], arguments[0]).compile().as_text() or "").cost
    ((collective, size),) = cost.collectives.items()
    assert (collective.kind, collective.members) == ("all-reduce", (0, 1, 2, 3))
    assert size == 4 * 6 * 3
    # Of two of the eight rows: forwards, and the kernel's gradient.
    assert cost.flops == 2 * 2 * (2 * 6 * 3)


def test_of_branches_the_one_that_moves_most_counts() -> None:
    branch = """
%{name} (p.{name}: f32[{size}]) -> f32[{size}] {{
  %p.{name} = f32[{size}]{{0}} parameter(0)
  ROOT %n.{name} = f32[{size}]{{0}} negate(%p.{name})
}}
"""
    program = _entry(
        "%w = s32[] parameter(0)",
        "%a = f32[10]{0} parameter(1)",
        "%b = f32[30]{0} parameter(2)",
        "ROOT %c = f32[10]{0} conditional(%w, %a, %b), branch_computations={%small, %large}",
        before=branch.format(name="small", size=10) + branch.format(name="large", size=30),
    )
    assert program.cost.memory_bytes == 2 * 4 * 30


def test_activations_that_a_loop_keeps_for_a_later_one_are_counted() -> None:
    def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(jax.lax.scan(lambda x, _: (jnp.tanh(x @ kernel), None), x, length=6)[0])

    arguments = jax.ShapeDtypeStruct((16, 16), jnp.float32), jax.ShapeDtypeStruct((8, 16), jnp.float32)
    kept = [
        Program(jax.jit(function).lower(*arguments).compile().as_text() or "").kept_bytes
        for function in (loss, jax.grad(loss))
    ]
    # Of each of six turns what goes in, 8 x 16 numbers, and what XLA keeps of tanh besides.
    assert kept[0] == 0
    assert kept[1] in [arrays * 6 * 4 * 8 * 16 for arrays in (1, 2, 3)]
