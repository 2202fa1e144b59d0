"""What a compiled program does on one device, read from XLA's own text of it: products, memory traffic, collectives."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

_BYTES = {
    "pred": 1,
    "s4": 0.5,
    "u4": 0.5,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
}
_BYTES |= {"f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "f8e4m3fn": 1, "f8e5m2": 1}
_ARRAY = re.compile(r"([a-z]+[0-9]*(?:e[0-9]m[0-9][a-z]*)?)\[([0-9,<=]*)\](?:\{([^{}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
_NAMES = re.compile(r"%([\w.\-]+)")
_DIMENSIONS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
# What moves no data, or whose parts are counted by themselves.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"}
_FREE |= {"while", "call", "conditional", "iota", "opt-barrier", "domain", "add-dependency"}
_FREE_CALLS = ("ConcatBitcast", "AssumeGatherIndicesInBound", "Sharding", "AllocateBuffer", "SliceBitcast")

# What goes to another slice of a pod: which slices take part, and in what.
_BETWEEN_SLICES = re.compile(r'_xla_megascale_target="\{([0-9,:]+)\}.*_xla_megascale_transfer_type="(\w+)"')
_RANGE = re.compile(r"([0-9]+)(?::([0-9]+))?")


class Collective(NamedTuple):
    """Collectives of one kind among the same devices, over a whole program.

    Attributes:
      kind: one of `COLLECTIVES`.
      members: the devices of the first group, as places in the mesh's order.
      overlaps: whether it is started and waited for apart, so that products may run meanwhile.
    """

    kind: str
    members: tuple[int, ...]
    overlaps: bool

    def sent(self, size: int | float) -> float:
        """Bytes that a device must send at least, for so many bytes of the larger of what goes in and comes out."""
        others = (len(self.members) - 1) / len(self.members)
        return size * {"all-reduce": 2 * others, "collective-permute": 1.0}.get(self.kind, others)


@dataclasses.dataclass
class Cost:
    """What a program does on one device.

    Attributes:
      operations: how often there is one of so many floating point operations of matrix products (a multiplication and
        an addition each) and so many bytes read from and written to the device's main memory, kernels included.
      collectives: bytes of each kind, of the larger of what goes in and comes out.
      counts: how many of each kind.
      kernels: how often each hand-written kernel runs, by its name.
    """

    operations: dict[tuple[float, float], float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    collectives: dict[Collective, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    counts: dict[Collective, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    kernels: dict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))

    def add(self, other: Cost, times: int | float) -> None:
        """Adds what another part does, so many times."""
        for own, more in zip(self._parts(), other._parts(), strict=True):
            for key, value in more.items():
                own[key] += times * value

    def beside_products(self) -> Cost:
        """The same, whose collectives are started and waited for apart."""
        own = Cost(self.operations, kernels=self.kernels)
        for mine, found in ((own.collectives, self.collectives), (own.counts, self.counts)):
            for kind, value in found.items():
                mine[kind._replace(overlaps=True)] += value
        return own

    def _parts(self) -> tuple[dict[Any, float], ...]:
        return self.operations, self.collectives, self.counts, self.kernels

    @property
    def flops(self) -> float:
        """Of matrix products, all of them."""
        return float(sum(times * flops for (flops, _), times in self.operations.items()))

    @property
    def memory_bytes(self) -> float:
        """Read from and written to main memory, all of them."""
        return float(sum(times * moved for (_, moved), times in self.operations.items()))

    def seconds(self, flops: float, bandwidth: float) -> float:
        """Of a device that does so many operations a second and moves so many bytes, whichever takes it longer.

        One operation after the other; collectives are apart.
        """
        each = ((max(flop / flops, moved / bandwidth), times) for (flop, moved), times in self.operations.items())
        return float(sum(seconds * times for seconds, times in each))


class _Array(NamedTuple):
    kind: str
    shape: tuple[int, ...]
    layout: str

    @property
    def in_main_memory(self) -> bool:
        return "S(" not in self.layout

    @property
    def size(self) -> float:
        """Bytes in memory, with what tiles are filled up with."""
        shape = list(self.shape)
        order, _, tiles = self.layout.partition(":")
        tile = re.match(r"T\(([0-9,]+)\)", tiles)
        if tile and shape:
            minor_first = [int(axis) for axis in order.split(",")] if order else list(range(len(shape)))[::-1]
            for axis, step in zip(minor_first, reversed(tile[1].split(",")), strict=False):
                shape[axis] = -(-shape[axis] // int(step)) * int(step)
        return float(math.prod(shape) * _BYTES.get(self.kind, 0))


@dataclasses.dataclass
class _Instruction:
    name: str
    arrays: list[_Array]
    opcode: str
    operands: list[str]
    attributes: str
    is_root: bool

    @property
    def size(self) -> float:
        return float(sum(array.size for array in self.arrays if array.in_main_memory))

    def is_parameter(self, index: int) -> bool:
        return self.opcode == "parameter" and self.operands == [str(index)]

    @property
    def index(self) -> int:
        found = re.search(r"index=([0-9]+)", self.attributes)
        return int(found[1]) if found else 0

    def called(self, name: str) -> str:
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""


class Program:
    """A compiled program.

    Args:
      text: of `jax.stages.Compiled.as_text()`.
    """

    def __init__(self, text: str) -> None:
        self._computations: dict[str, dict[str, _Instruction]] = {}
        self._entry = ""
        found = re.search(r"num_partitions=([0-9]+)", text.partition("\n")[0])
        self._devices = int(found[1]) if found else 1
        inside: dict[str, _Instruction] | None = None
        for line in text.splitlines():
            if inside is None:
                if header := _HEADER.match(line):
                    inside = self._computations.setdefault(header[2], {})
                    self._entry = header[2] if header[1] else self._entry
            elif line.startswith("}") and not line.startswith("}}"):
                inside = None
            elif found := _INSTRUCTION.match(line):
                instruction = _parse(line[found.end() :], found[2], is_root=bool(found[1]))
                inside[instruction.name] = instruction

    @functools.cached_property
    def cost(self) -> Cost:
        """What one run of it does."""
        return self._cost_of(self._entry)

    @functools.cached_property
    def kept_bytes(self) -> float:
        """Of what loops write a part of in each turn and later loops read: activations for the backward pass."""
        return max((self._kept_in(computation) for computation in self._computations.values()), default=0.0)

    def _kept_in(self, computation: dict[str, _Instruction]) -> float:
        loops = [each for each in computation.values() if each.opcode == "while"]
        inputs = {name for loop in loops for init in loop.operands for name in computation[init].operands}
        total = 0.0
        for loop in loops:
            body = self._computations[loop.called("body")]
            (root,) = [each for each in body.values() if each.is_root]
            for part in computation.values():
                if part.opcode == "get-tuple-element" and part.operands == [loop.name] and part.name in inputs:
                    written = body[root.operands[part.index]]
                    total += part.size if self._updates_in_place(written, body) else 0
        return total

    def _updates_in_place(self, instruction: _Instruction, computation: dict[str, _Instruction]) -> bool:
        """Whether what it gives is an array of which it has written a part."""
        if instruction.opcode in ("get-tuple-element", "bitcast", "copy"):
            return self._updates_in_place(computation[instruction.operands[0]], computation)
        inner = self._computations.get(instruction.called("calls"), {})
        return "dynamic-update-slice" in {instruction.opcode, *(each.opcode for each in inner.values())}

    def _cost_of(self, name: str) -> Cost:
        total, computation = Cost(), self._computations[name]
        for instruction in computation.values():
            if instruction.opcode == "while":
                trips = self._trips(instruction.called("condition"))
                total.add(self._cost_of(instruction.called("body")), trips)
            elif instruction.opcode == "conditional":
                branches = [self._cost_of(branch) for branch in _branches(instruction)]
                total.add(max(branches, key=lambda cost: cost.memory_bytes), 1)
            elif instruction.opcode == "call":
                total.add(self._cost_of(instruction.called("to_apply")), 1)
            else:
                total.add(self._cost_of_one(instruction, computation), 1)
        return total

    def _cost_of_one(self, instruction: _Instruction, computation: dict[str, _Instruction]) -> Cost:
        cost, flops = Cost(), _product_flops(instruction, computation)
        opcode = instruction.opcode.removesuffix("-start")
        if opcode in COLLECTIVES:
            arrays = [array for name in instruction.operands for array in computation[name].arrays]
            given = sum(array.size for array in arrays)
            size = max(given, sum(array.size for array in instruction.arrays))
            if instruction.opcode.endswith("-start"):
                # What it gives has what goes in beside what comes out, and maybe counters.
                size = max(given, size - given)
            members = _members(instruction.attributes) or tuple(range(self._devices))
            kind = Collective(opcode, members, instruction.opcode.endswith("-start"))
            if len(kind.members) > 1:
                cost.collectives[kind] += size
                cost.counts[kind] += 1
        elif instruction.opcode == "send" and (between := _BETWEEN_SLICES.search(instruction.attributes)):
            kind, size = self._between_slices(between, instruction, computation)
            cost.collectives[kind] += size
            cost.counts[kind] += 1
        elif instruction.opcode == "custom-call" and "tpu_custom_call" in instruction.attributes:
            cost.kernels[re.sub(r"\.[0-9.]+$", "", instruction.name)] += 1
            flops += _kernel_flops(instruction)
        apart = instruction.called("to_apply") if instruction.opcode == "call-start" else ""
        for name in (instruction.called("calls"), instruction.called("async_computation"), apart):
            if name in self._computations:
                inside = self._inside(name)
                flops += inside.flops
                inside.operations.clear()
                # What runs apart, on a chip's sparse cores, leaves the others to products.
                cost.add(inside.beside_products() if name == apart else inside, 1)
        moved = self._memory_bytes(instruction, computation)
        if flops or moved:
            cost.operations[flops, moved] += 1
        return cost

    def _between_slices(
        self, between: re.Match[str], instruction: _Instruction, computation: dict[str, _Instruction]
    ) -> tuple[Collective, float]:
        """A collective of the devices at one place of each slice: hosts do it, and the program sends and receives."""
        slices = sum(1 + int(last or first) - int(first) for first, last in _RANGE.findall(between[1]))
        # A program is of one slice alone, whose devices come one after the other.
        members = tuple(range(0, slices * self._devices, self._devices))
        given = sum(array.size for array in computation[instruction.operands[0]].arrays)
        kind = Collective(between[2].lower().replace("_", "-"), members, overlaps=True)
        return kind, given * (slices if kind.kind == "all-gather" else 1)

    def _inside(self, name: str) -> Cost:
        """Products and collectives of a fusion, or of what is started apart."""
        cost, inner = Cost(), self._computations[name]
        for each in inner.values():
            cost.add(self._cost_of_one(each, inner), 1)
        return cost

    def _trips(self, condition: str) -> int:
        """How often a loop runs whose counter goes up from 0 by 1, as those of scans do."""
        names, limits = [condition], [1]
        while names:
            for instruction in self._computations.get(names.pop(), {}).values():
                if called := instruction.called("calls"):
                    names.append(called)
                if instruction.opcode == "constant" and instruction.arrays[0].kind in ("s32", "u32"):
                    limits += [int(number) for number in instruction.operands if number.lstrip("-").isdigit()]
        return max(limits)

    def _memory_bytes(self, instruction: _Instruction, computation: dict[str, _Instruction]) -> float:
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith(("-done", "-update")):
            return 0.0
        if opcode == "custom-call" and any(name in instruction.attributes for name in _FREE_CALLS):
            return 0.0
        if opcode in ("send", "recv"):
            # What goes out or comes in, beside a context and a token.
            return instruction.arrays[0].size
        if opcode == "call-start":
            # Of what goes in and what comes out.
            return instruction.size
        operands = [computation[name] for name in instruction.operands if name in computation]
        if opcode in ("copy-start", "slice-start", "async-start"):
            return self._bytes_of_copy(instruction)
        if opcode == "dynamic-slice" or opcode == "slice":
            return 2 * instruction.size
        if opcode == "dynamic-update-slice":
            return 2 * operands[1].size
        if opcode == "gather":
            return 2 * instruction.size + operands[1].size
        if opcode == "fusion":
            return self._bytes_of_fusion(instruction, operands)
        return instruction.size + sum(operand.size for operand in operands)

    def _bytes_of_copy(self, instruction: _Instruction) -> float:
        """What is copied between memories: once for each end that lies in main memory."""
        moved = [array for array in instruction.arrays if array.kind != "u32" or array.shape]
        if not moved:
            return 0.0
        size = min(array.size for array in moved)
        return size if any(not array.in_main_memory for array in moved) else 2 * size

    def _bytes_of_fusion(self, instruction: _Instruction, operands: list[_Instruction]) -> float:
        """What goes in and comes out; of what is sliced, or updated in place, only the slice."""
        name = instruction.called("calls")
        inner = self._computations[name]
        total = sum(self._bytes_read(name, index, operand.size) for index, operand in enumerate(operands))
        for root, output in itertools.zip_longest(_roots(inner), instruction.arrays):
            if output is None or not output.in_main_memory:
                continue
            updated = root is not None and root.opcode == "dynamic-update-slice"
            total += sum(array.size for array in inner[root.operands[1]].arrays) if updated else output.size
        return total

    def _bytes_read(self, fusion: str, index: int, whole: float) -> float:
        """Of an operand of a fusion: slices where nothing but slices is taken, nothing where it is only updated."""
        inner = self._computations[fusion]
        total, seen = 0.0, [name for name, each in inner.items() if each.is_parameter(index)]
        while seen:
            name = seen.pop()
            for user in inner.values():
                places = [place for place, operand in enumerate(user.operands) if operand == name]
                if not places:
                    continue
                if user.opcode in ("bitcast", "copy"):
                    seen.append(user.name)
                elif user.opcode in ("dynamic-slice", "slice", "gather") and places == [0]:
                    total += sum(array.size for array in user.arrays)
                elif user.opcode == "fusion":
                    total += sum(self._bytes_read(user.called("calls"), place, whole) for place in places)
                elif user.opcode != "dynamic-update-slice" or places != [0]:
                    return whole
        return min(total, whole)


def _roots(inner: dict[str, _Instruction]) -> list[_Instruction]:
    """What a fusion gives, one for each of its outputs, seen through casts and bitcasts."""
    (root,) = [each for each in inner.values() if each.is_root]
    roots = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for index, each in enumerate(roots):
        while each.opcode == "bitcast":
            each = inner[each.operands[0]]
        roots[index] = each
    return roots


def _branches(instruction: _Instruction) -> list[str]:
    found = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    names = _NAMES.findall(found[1]) if found else []
    return names or [instruction.called(name) for name in ("true_computation", "false_computation")]


def _parse(rest: str, name: str, *, is_root: bool) -> _Instruction:
    """An instruction of what stands behind its equals sign: type, opcode, operands, attributes."""
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    begin = rest.index("(")
    end = _closing(rest, begin)
    inside, attributes = rest[begin + 1 : end], rest[end + 1 :]
    opcode = rest[:begin]
    operands = [inside] if opcode in ("constant", "parameter") else _NAMES.findall(inside)
    return _Instruction(name, _arrays(kind), opcode, operands, attributes, is_root)


def _closing(text: str, begin: int) -> int:
    depth = 0
    for index in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if not depth:
            return index
    return len(text) - 1


def _arrays(kind: str) -> list[_Array]:
    arrays = []
    for name, shape, layout in _ARRAY.findall(kind):
        sizes = tuple(int(size.lstrip("<=")) for size in shape.split(",") if size)
        arrays.append(_Array(name, sizes, layout))
    return arrays


def _product_flops(instruction: _Instruction, computation: dict[str, _Instruction]) -> float:
    if instruction.opcode not in ("convolution", "dot"):
        return 0.0
    left, right = (computation[name].arrays[0].shape for name in instruction.operands[:2])
    out = instruction.arrays[0].shape
    if instruction.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", instruction.attributes)
        axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
        return 2.0 * math.prod(out) * math.prod(left[axis] for axis in axes)
    labels = _DIMENSIONS.search(instruction.attributes)
    if labels is None:
        return 0.0
    inputs, kernel, outputs = labels.groups()
    total = 2.0 * out[outputs.index("b")] * out[outputs.index("f")] * right[kernel.index("i")]
    window = _window(instruction.attributes)
    for axis in sorted(set(inputs) - {"b", "f"}):
        place = int(axis)
        settings = {name: values[place] for name, values in window.items() if place < len(values)}
        total *= _pairs(left[inputs.index(axis)], right[kernel.index(axis)], out[outputs.index(axis)], settings)
    return total


def _window(attributes: str) -> dict[str, list[str]]:
    found = re.search(r"window=\{([^}]*)\}", attributes)
    parts = (part.partition("=") for part in found[1].split()) if found else ()
    return {name: values.split("x") for name, _, values in parts}


def _pairs(inputs: int, kernel: int, outputs: int, settings: dict[str, str]) -> int:
    """How many pairs of an output and a place of the kernel meet an input that is there, along one axis."""
    stride, dilation, spread = (int(settings.get(name, 1)) for name in ("stride", "rhs_dilate", "lhs_dilate"))
    before = int(settings.get("pad", "0_0").split("_")[0])
    found = 0
    for out in range(outputs):
        for place in range(kernel):
            at = out * stride + place * dilation - before
            found += at >= 0 and at % spread == 0 and at // spread < inputs
    return found


def _members(attributes: str) -> tuple[int, ...]:
    """The devices of the first group of a collective, in each of the forms that XLA writes them in."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = {name.strip(" '"): int(size) for name, size in (each.split("=") for each in found[1].split(","))}
        wanted = [name.strip(" '") for name in found[2].split(",")]
        return tuple(_along(list(sizes.items()), wanted))
    if found := re.search(r"replica_groups=\[([0-9,]+)\]<=\[([0-9,]+)\](?:T\(([0-9,]+)\))?", attributes):
        numbers = [[int(each) for each in (part or "").split(",") if each] for part in found.groups()]
        return tuple(_iota(*numbers))
    if found := re.search(r"replica_groups=\{\{([0-9,]+)\}", attributes):
        return tuple(int(each) for each in found[1].split(","))
    if found := re.search(r"source_target_pairs=\{\{([0-9]+),([0-9]+)\}", attributes):
        return int(found[1]), int(found[2])
    return ()


def _along(sizes: Sequence[tuple[str, int]], wanted: Iterable[str]) -> Iterator[int]:
    """Places in a row-major mesh that differ from the first along these axes alone."""
    strides, stride = {}, 1
    for name, size in reversed(sizes):
        strides[name], stride = stride, stride * size
    ranges = [range(0, size * strides[name], strides[name]) for name, size in sizes if name in set(wanted)]
    for parts in itertools.product(*ranges):
        yield sum(parts)


def _iota(shape: list[int], sizes: list[int], order: list[int]) -> list[int]:
    """The first row of `arange(...).reshape(sizes).transpose(order).reshape(shape)`."""
    order = order or list(range(len(sizes)))
    steps, step = [0] * len(sizes), 1
    for axis in reversed(range(len(sizes))):
        steps[axis], step = step, step * sizes[axis]
    ranges = [range(0, sizes[axis] * steps[axis], steps[axis]) for axis in order]
    places = (sum(parts) for parts in itertools.product(*ranges))
    return list(itertools.islice(places, shape[-1]))


def _kernel_flops(instruction: _Instruction) -> float:
    """Of splash attention, by the shapes of queries and keys: two products forwards, five backwards."""
    products = {"fwd": 2, "dkv": 5}
    kind = next((kind for kind in products if f"_{kind}" in instruction.name), None)
    found = re.search(r"operand_layout_constraints=\{(.*?\})\}", instruction.attributes)
    sequences = [array.shape for array in _arrays(found[1]) if len(array.shape) == 4] if found else []
    if kind is None or len(sequences) < 2:
        return 0.0
    # [rows, heads, features, positions], as `layers.kernels` asks for.
    query, key = sequences[:2]
    return products[kind] * 2.0 * math.prod(query) * key[3]
