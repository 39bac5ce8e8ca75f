"""Expressions: a small, checked language for choosing rows of a table, such as `motion_flow > 0.02 and "static" not in reject`."""

import ast
import difflib
import operator
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Value = Any  # a pa.Array, a pa.ChunkedArray or a pa.Scalar

_COMPARE: dict[type[ast.cmpop], Callable[[Value, Value], Value]] = {
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
}
LONGEST = 2000
EXAMPLE = 'motion_flow > 0.02 and "static" not in reasons'


class ExpressionError(ValueError):
    """The user's expression: what is wrong and where in its text."""


def where(table: pa.Table, text: str) -> pa.Table:
    """The rows of `table` for which `text` is true; where a value is null, no comparison is true.

    Names are columns. There are numbers, strings, True, False, None; + - * / and a sign; < <= > >= == != (also chained);
    `"x" in column` for lists and texts, `column in ("a", "b")`, `column is None`; and, or, not, parentheses. Nothing else.

    Raises:
        ExpressionError: no such language, no such column, or values that cannot be compared.
    """
    if len(text) > LONGEST:
        raise ExpressionError(f"--where: {len(text)} characters; at most {LONGEST}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ExpressionError(f"--where {text!r}: {getattr(error, 'msg', error)}; write such as {EXAMPLE}") from error
    try:
        mask = _Evaluation(table, text).value(tree.body)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise ExpressionError(f"--where {text!r}: {error}") from error
    if mask.type != pa.bool_():
        raise ExpressionError(f"--where {text!r}: gives {mask.type}, but must give true or false for each row")
    if isinstance(mask, pa.Scalar):
        return table if mask.as_py() else table.slice(0, 0)
    return table.filter(mask)


def sort(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """`table` sorted by columns, "-name" for descending; nulls last, equal rows in their order.

    Raises:
        ExpressionError: no such column, or one that has no order.
    """
    for key in reversed(keys):
        name = key.removeprefix("-")
        column = known(table, name, "--sort")
        if pa.types.is_nested(column.type):
            raise ExpressionError(f"--sort {name}: a {column.type} has no order")
        order = "descending" if key.startswith("-") else "ascending"
        table = table.take(pc.sort_indices(table, [(name, order, "at_end")]))
    return table


def known(table: pa.Table, name: str, option: str) -> pa.ChunkedArray:
    """A column by its name.

    Raises:
        ExpressionError: there is none; it names the nearest.
    """
    if name not in table.column_names:
        near = difflib.get_close_matches(name, table.column_names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"columns: {', '.join(table.column_names)}"
        raise ExpressionError(f"{option}: no column {name!r}; {hint}")
    return table[name]


class _Evaluation:
    """Walks one expression's tree; every kind of node that is not named here is refused."""

    def __init__(self, table: pa.Table, text: str) -> None:
        self._table, self._text = table, text

    def value(self, node: ast.expr) -> Value:
        """The value of any allowed node."""
        match node:
            case ast.Name(id=name):
                return known(self._table, name, f"--where {self._text!r}")
            case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
                return pa.scalar(value)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return pc.invert(self._truth(operand))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                return pc.negate(self._number(operand)) if isinstance(sign, ast.USub) else self._number(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _ARITHMETIC[type(op)](self._number(left), self._number(right))
            case ast.BoolOp(op=op, values=values):
                join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                return self._joined(join, [self._truth(value) for value in values])
            case ast.Compare(left=left, ops=ops, comparators=others):
                pairs = zip([left, *others[:-1]], ops, others, strict=True)
                return self._joined(pc.and_kleene, [self._compared(a, op, b) for a, op, b in pairs])
        raise self._refused(node)

    def _joined(self, join: Callable[[Value, Value], Value], parts: list[Value]) -> Value:
        result = parts[0]
        for part in parts[1:]:
            result = join(result, part)
        return result

    def _truth(self, node: ast.expr) -> Value:
        value = self.value(node)
        if value.type != pa.bool_():
            raise ExpressionError(f"--where {self._text!r}: {ast.unparse(node)} is {value.type}, not true or false; compare it with something")
        return value

    def _number(self, node: ast.expr) -> Value:
        """A number as float64, so that integers divide and add without overflow."""
        value = self.value(node)
        if not (pa.types.is_integer(value.type) or pa.types.is_floating(value.type)):
            raise ExpressionError(f"--where {self._text!r}: {ast.unparse(node)} is {value.type}, not a number")
        return value.cast(pa.float64())

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Value:
        """One comparison of a chain."""
        if type(op) in _COMPARE:
            return _COMPARE[type(op)](self.value(left), self.value(right))
        negated = isinstance(op, ast.IsNot | ast.NotIn)
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise ExpressionError(f"--where {self._text!r}: `is` asks for None alone, as in `caption is None`")
            found = pc.is_null(self.value(left))
        else:
            found = self._contained(left, right)
        return pc.invert(found) if negated else found

    def _contained(self, left: ast.expr, right: ast.expr) -> Value:
        """`left in right`: a value among literals, or a literal in a column of lists or texts."""
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            member = self.value(left)
            return self._joined(pc.or_kleene, [pc.equal(member, self.value(item)) for item in right.elts] or [pa.scalar(False)])
        if not (isinstance(left, ast.Constant) and isinstance(left.value, str)):
            raise ExpressionError(f"""--where {self._text!r}: write "text" in column, or column in ("a", "b")""")
        column = self.value(right)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return pc.match_substring(column, left.value)
        if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
            return pa.array([None if row is None else operator.contains(row, left.value) for row in column.to_pylist()], pa.bool_())
        raise ExpressionError(f"--where {self._text!r}: {ast.unparse(right)} is {column.type}: nothing is in it")

    def _refused(self, node: ast.expr) -> ExpressionError:
        return ExpressionError(
            f"--where {self._text!r}: {ast.unparse(node)!r} is not understood here: names, numbers, texts, + - * /, comparisons, in, is None, and, or, not"
        )
