"""A small calculator for sweep files: arithmetic, comparisons, and/or/not over named values. Never `eval`.

Expressions are read by Python's own parser and walked node by node; whatever is not listed here is refused. Numbers
stay small by construction: powers and shifts that could grow without bound are limited.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_LENGTH = 500
MAX_NODES = 100
MAX_POWER = 64
MAX_NUMBER = 1e18

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, many: value in many,
    ast.NotIn: lambda value, many: value not in many,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "min": min,
    "max": max,
    "round": round,
    "int": int,
    "float": float,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "log": math.log,
    "log2": math.log2,
    "exp": math.exp,
}
_CONSTANTS: Mapping[str, Any] = {"true": True, "false": False, "null": None}


class ExpressionError(ValueError):
    """The expression cannot be read, or has no value for these names."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression. names: the dotted names that it reads, in order of appearance."""

    text: str
    names: tuple[str, ...]
    _tree: ast.expr

    def value(self, lookup: Callable[[str], Any]) -> Any:
        """The expression's value.

        Args:
            lookup: value of a dotted name; raises KeyError where there is none.

        Raises:
            ExpressionError: an unknown name, a division by zero, operands that do not go together.
        """
        try:
            found = _value(self._tree, lookup)
        except KeyError as error:
            raise ExpressionError(f"{self.text!r} reads {error.args[0]!r}, which has no value here") from None
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ExpressionError(f"{self.text!r} has no value: {error}") from None
        return found


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """Read an expression such as `4096 // k` or `router.name == 'switch' and k < num_experts`.

    Raises:
        ExpressionError: it is too long, is no expression, or uses something that is not allowed.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH} characters, this one has {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ExpressionError(f"{text!r} is no expression: {reason}") from None
    names: list[str] = []
    _check(tree, names, [0])
    return Expression(text, tuple(dict.fromkeys(names)), tree)


def _check(node: ast.expr, names: list[str], count: list[int]) -> None:
    """Refuse what is not listed; collect names."""
    count[0] += 1
    if count[0] > MAX_NODES:
        raise ExpressionError(f"an expression has at most {MAX_NODES} parts")
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return
        case ast.Name() | ast.Attribute():
            name = _dotted(node)
            if name not in _CONSTANTS:
                names.append(name)
            return
        case ast.BinOp(op=op) if type(op) in _BINARY:
            children: list[ast.expr] = [node.left, node.right]
        case ast.UnaryOp(op=op) if type(op) in _UNARY:
            children = [node.operand]
        case ast.BoolOp():
            children = node.values
        case ast.Compare(ops=ops) if all(type(op) in _COMPARE for op in ops):
            children = [node.left, *node.comparators]
        case ast.IfExp():
            children = [node.test, node.body, node.orelse]
        case ast.List() | ast.Tuple():
            children = node.elts
        case ast.Call(func=ast.Name(id=function), keywords=[]) if function in _FUNCTIONS:
            children = node.args
        case ast.Call():
            raise ExpressionError(f"{ast.unparse(node)!r}: the functions are {', '.join(sorted(_FUNCTIONS))}")
        case _:
            raise ExpressionError(f"{ast.unparse(node)!r} is not allowed in an expression")
    for child in children:
        _check(child, names, count)


def _value(node: ast.expr, lookup: Callable[[str], Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name() | ast.Attribute():
            name = _dotted(node)
            return _CONSTANTS[name] if name in _CONSTANTS else lookup(name)
        case ast.BinOp(left=left, op=op, right=right):
            return _bounded(_binary(op, _value(left, lookup), _value(right, lookup)))
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, lookup))
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(each, lookup) for each in values)
        case ast.BoolOp(values=values):
            return any(_value(each, lookup) for each in values)
        case ast.Compare():
            return _compare(node, lookup)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, lookup) else orelse, lookup)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(each, lookup) for each in elements]
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return _bounded(_FUNCTIONS[function](*(_value(each, lookup) for each in arguments)))
    raise AssertionError(f"{ast.dump(node)} passed the check")


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    if not all(isinstance(each, int | float) for each in (left, right)):
        raise TypeError(f"arithmetic needs numbers, got {left!r} and {right!r}")
    if isinstance(op, ast.Pow) and abs(right) > MAX_POWER:
        raise ValueError(f"a power of {right} is more than {MAX_POWER}")
    return _BINARY[type(op)](left, right)


def _bounded(value: Any) -> Any:
    if isinstance(value, complex):
        raise ValueError("the result is a complex number")
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        raise ValueError(f"the number {value:.3g} is too large")
    return value


def _compare(node: ast.Compare, lookup: Callable[[str], Any]) -> bool:
    left = _value(node.left, lookup)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        right = _value(comparator, lookup)
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            return f"{_dotted(value)}.{attribute}"
    raise ExpressionError(f"{ast.unparse(node)!r} is not allowed in an expression")
