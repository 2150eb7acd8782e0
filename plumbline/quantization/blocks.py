"""Group a graph's operators by the module that they came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plumbline.quantization.recipes import Block

# A search bisects over blocks: too few make it coarse, many take long to rank.
FEWEST, MOST = 10, 40
# Of the multiply-adds: a block with more is divided where it can be.
LARGEST_SHARE = 0.15

Path = tuple[str, ...]


@dataclass(frozen=True)
class Operator:
    """One node of the graph.

    Attributes:
        name: As the exporter gave it: ``/layer1/layer1.0/conv1/Conv``.
        multiply_adds: For one image; 0 for what is neither a convolution nor a matrix product.
        sources: Names of the nodes that its inputs come from.
    """

    name: str
    multiply_adds: int
    sources: tuple[str, ...]


def group_into_blocks(operators: Sequence[Operator]) -> tuple[tuple[Block, ...], dict[str, str]]:
    """Group operators by the modules in their names, into about 10 to 40 blocks.

    It starts from the outermost modules and divides the largest block into its own modules. An operator whose name has
    no module is a block of its own, if it has multiply-adds; any other operator joins its module's block, or that of
    what it reads.

    Args:
        operators: In an order in which each comes after those that it reads.

    Returns:
        The blocks in the order of the graph, and the block's name for each operator's name.

    >>> blocks, _ = group_into_blocks([Operator("/a/x/Conv", 3, ()), Operator("/a/y/Conv", 1, ("/a/x/Conv",))])
    >>> blocks
    (Block(name='/a/x', share=0.75), Block(name='/a/y', share=0.25))
    """
    costs = {operator.name: operator.multiply_adds for operator in operators if operator.multiply_adds}
    groups = _divided({name: _modules(name) or (name,) for name in costs}, costs)
    block_of = {name: _label(prefix) for prefix, names in groups.items() for name in names}
    for operator in operators:
        if operator.name not in block_of:
            block_of[operator.name] = _block_near(operator, groups, block_of)
    total = sum(costs.values())
    first_places = {name: place for place, name in reversed(list(enumerate(costs)))}
    in_order = sorted(groups, key=lambda prefix: min(first_places[name] for name in groups[prefix]))
    blocks = tuple(Block(_label(prefix), sum(costs[name] for name in groups[prefix]) / total) for prefix in in_order)
    return blocks, block_of


def _modules(name: str) -> Path:
    """Return the modules in a name, the outermost first.

    >>> _modules("/body.2/m.0/cv1/conv/Conv"), _modules("Conv_12")
    (('/body.2', '/m.0', '/cv1', '/conv'), ())
    """
    return tuple(f"/{part}" for part in name.split("/")[1:-1]) if name.startswith("/") else ()


def _label(prefix: Path) -> str:
    return "".join(prefix)


def _divided(modules: Mapping[str, Path], costs: Mapping[str, int]) -> dict[Path, list[str]]:
    """Return prefix -> names of operators with multiply-adds."""
    groups = _by_prefix(list(modules), modules, 1)
    total = sum(costs.values())
    while len(groups) < MOST:
        parts = {prefix: _parts(prefix, names, modules) for prefix, names in groups.items()}
        divisible = [prefix for prefix in groups if len(parts[prefix]) > 1 and len(groups) + len(parts[prefix]) <= MOST]
        if not divisible:
            break
        largest = max(divisible, key=lambda prefix: sum(costs[name] for name in groups[prefix]))
        if len(groups) >= FEWEST and sum(costs[name] for name in groups[largest]) <= LARGEST_SHARE * total:
            break
        del groups[largest]
        groups.update(parts[largest])
    return groups


def _parts(prefix: Path, names: Sequence[str], modules: Mapping[str, Path]) -> dict[Path, list[str]]:
    """Divide a group where the names next differ; one part where they do not."""
    deepest = max(len(modules[name]) for name in names)
    for depth in range(len(prefix) + 1, deepest + 1):
        parts = _by_prefix(names, modules, depth)
        if len(parts) > 1:
            return parts
    return {prefix: list(names)}


def _by_prefix(names: Sequence[str], modules: Mapping[str, Path], depth: int) -> dict[Path, list[str]]:
    groups: defaultdict[Path, list[str]] = defaultdict(list)
    for name in names:
        groups[modules[name][:depth]].append(name)
    return dict(groups)


def _block_near(operator: Operator, groups: Mapping[Path, list[str]], block_of: Mapping[str, str]) -> str:
    modules = _modules(operator.name)
    for depth in range(len(modules), 0, -1):
        if modules[:depth] in groups:
            return _label(modules[:depth])
    known = (block_of[source] for source in operator.sources if source in block_of)
    return next(known, _label(next(iter(groups), ())))
