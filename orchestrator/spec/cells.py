"""From drawn values to a cell: conditions, derived values, constraints. Pure.

Names in expressions are those of parameters, or dotted places of the configuration; the last parts suffice where they
are unambiguous (`k` for `model.feedforward.router.k`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orchestrator.spec.expression import Expression, ExpressionError, parse
from orchestrator.spec.model import SweepSpec
from orchestrator.spec.resolve import Resolved, Resolver


class Cells:
    """Makes cells of one sweep file.

    Raises:
        ExpressionError: when it is made, if derived parameters refer to each other in a circle.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self.resolver = Resolver(spec.workload)
        self._parameters = spec.parameters
        self._conditions = {name: parse(p.when) for name, p in spec.parameters.items() if p.when is not None}
        self._formulas = {name: parse(p.expr) for name, p in spec.parameters.items() if p.expr is not None}
        self._constraints = [parse(text) for text in spec.constraints]
        self._order = _in_order(spec.parameters, {**self._reads()})
        self.plain = not (self._conditions or self._formulas or self._constraints)

    def cell(self, drawn: Mapping[str, Any]) -> Resolved | None:
        """The configuration for these values; None where a constraint leaves it out.

        Args:
            drawn: a value for every parameter that has values or a range.

        Raises:
            ExpressionError: an expression reads a name that has no value here, or cannot be computed.
        """
        if self.plain:
            return self.resolver.resolve(drawn, lenient=True)
        assigned: dict[str, Any] = {}
        for name in self._order:
            condition, formula = self._conditions.get(name), self._formulas.get(name)
            if condition is not None and not self._true(condition, assigned):
                continue
            assigned[name] = formula.value(self._reader(assigned)) if formula else drawn[name]
        assigned = {name: assigned[name] for name in self._parameters if name in assigned}
        # A constraint on something that a cell does not have does not concern it: `k < num_experts` and a dense layer
        if not all(self._true(constraint, assigned, absent=True) for constraint in self._constraints):
            return None
        return self.resolver.resolve(assigned, lenient=True)

    def _true(self, expression: Expression, assigned: Mapping[str, Any], *, absent: bool = False) -> bool:
        """Whether it holds; absent: what counts where it reads something that this cell does not have."""
        reader = self._reader(assigned)
        for name in expression.names:
            try:
                reader(name)
            except KeyError:
                if self._exists_somewhere(name):
                    return absent
                raise ExpressionError(f"{expression.text!r} reads {name!r}, which no workload has") from None
        return bool(expression.value(reader))

    def _exists_somewhere(self, name: str) -> bool:
        return any(_matches(name, parameter) for parameter in self._parameters) or "." in name

    def _reader(self, assigned: Mapping[str, Any]) -> Any:
        def read(name: str) -> Any:
            if name in assigned:
                return assigned[name]
            near = [each for each in assigned if _matches(name, each)]
            if len(near) == 1:
                return assigned[near[0]]
            places = dict(_leaves(self.resolver.structure(assigned).document, ()))
            if name in places:
                return places[name]
            found = [each for each in places if _matches(name, each) and each not in assigned]
            if len(near) + len(found) > 1:
                raise ValueError(f"{name!r} could be {' or '.join(sorted([*near, *found])[:4])}; write more of it")
            if not found:
                raise KeyError(name)
            return places[found[0]]

        return read

    def _reads(self) -> dict[str, set[str]]:
        """By parameter, the parameters that its condition and formula read."""
        reads: dict[str, set[str]] = {}
        for table in (self._conditions, self._formulas):
            for name, expression in table.items():
                found = {p for each in expression.names for p in self._parameters if _matches(each, p) and p != name}
                reads[name] = reads.get(name, set()) | found
        return reads


def _matches(short: str, full: str) -> bool:
    return full == short or full.endswith(f".{short}")


def _in_order(names: Iterable[str], reads: Mapping[str, set[str]]) -> list[str]:
    """Names so that each comes after those that it reads, otherwise as they stand."""
    order: list[str] = []
    left = list(names)
    while left:
        ready = next((name for name in left if reads.get(name, set()) <= set(order)), None)
        if ready is None:
            raise ExpressionError(f"{', '.join(left)} refer to each other in a circle")
        order.append(ready)
        left.remove(ready)
    return order


def _leaves(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _leaves(value, (*path, i))
    else:
        yield ".".join(map(str, path)), node
