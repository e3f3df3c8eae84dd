"""An independent reading of the equations of a line, by a regex and Python's own grammar over fractions."""

import ast
import operator
import re
from fractions import Fraction

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(expression):
    """What a plain expression comes to, exactly; None where the text is none."""

    def walk(node):
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -walk(node.operand)
        return Fraction(str(node.value))

    try:
        return walk(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, KeyError, AttributeError, ValueError, ZeroDivisionError):
        return None


def equations(line):
    """(left value, right value) of the equations of a line whose operands carry no units and no brackets."""
    line = re.sub(r"(?<=[0-9])\s*x\s*(?=[$0-9])", " * ", line.replace("$", "")).replace("×", "*")
    line = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", line)
    sides = (
        r"(?<![\w.%)-])(?<![0-9] )(-?[0-9.]+(?:\s*[-+*/]\s*[0-9.]*[0-9])+)\s*=\s*"
        r"(-?[0-9]+(?:\.[0-9]+)?)(?![\w%/]|\s*[-+*/])"
    )
    found = re.findall(sides, line)
    return [(value(left), Fraction(right)) for left, right in found if value(left) is not None]
