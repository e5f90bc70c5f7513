"""Every sentence that a user can cause, read from the code: what ``raise`` is given, followed to the texts behind it.

``python -m tests.errors`` prints them, ``…`` where something is filled in. docs/errors.md has an example of each; a
test holds the two together.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuning.options import RULES

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "models", "tuning", "server")
FAMILY = frozenset(
    (
        *("UserError", "SettingError", "DataError", "BackboneError", "TrackingError"),  # exit status 2
        *("SearchError", "ExportError", "LoadBackError"),  # exit status 1
        "PartError",  # of python -m server.local
    )
)
VALIDATORS = ("tuning.domains", "tuning.recipe")  # pydantic turns their ValueErrors into sentences about an option
REASONS = ("models.package._compare", "models.package._write_onnx")  # stand in the brackets of another sentence
# What is left of a sentence that is handed on with a place before it, or made of an option's name and rule (below).
WORDLESS = re.compile(r"…|[\s:,;?-]|\bgot\b|did you mean|the options")
HOLE = "…"  # whatever is filled in
DEEPEST = 12  # calls and names that are followed, one within another
MOST = 64  # texts that one expression may stand for
Texts = frozenset[str]
UNKNOWN: Texts = frozenset((HOLE,))


@dataclass(frozen=True)
class Sentence:
    """A text that some ``raise`` of the family gives, and where that stands."""

    text: str
    kind: str
    where: str


@dataclass
class Module:
    """A module's functions (methods too), its constants, and what it imports from ours."""

    name: str
    tree: ast.Module
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
                self.imports |= {alias.asname or alias.name: node.module for alias in node.names}
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self.constants[statement.targets[0].id] = statement.value


def modules() -> dict[str, Module]:
    """Return our modules by their dotted names."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = Module(name, ast.parse(path.read_text()))
    return found


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: its module and function, what the function was called with, and how deep we are."""

    module: Module
    function: ast.FunctionDef | None = None
    arguments: Mapping[str, Texts] = field(default_factory=dict)
    depth: int = 0

    def deeper(self, **changes: Any) -> Scope:
        """Return the scope one expression further in."""
        return replace(self, depth=self.depth + 1, **changes)


class Reader:
    """Follows expressions to the texts that they stand for."""

    def __init__(self) -> None:
        self._modules = modules()

    def sentences(self) -> list[Sentence]:
        """Return every sentence of the family, by where it is raised."""
        found: dict[tuple[str, str], Sentence] = {}
        for module in self._modules.values():
            for function in module.functions.values():
                where = f"{module.name}.{function.name}"
                for raised, kind in _raises(function) if where not in REASONS else ():
                    for argument in raised.args:
                        for text in self._texts(argument, Scope(module, function)):
                            one = Sentence(_tidy(text), kind, where)
                            if WORDLESS.sub("", one.text):
                                found.setdefault((kind, one.text), one)
        return [*found.values(), *self._options()]

    def _options(self) -> Iterator[Sentence]:
        """Yield what is said of an option's value: pydantic's rules in our words, and our own validators."""
        for rule in RULES.values():
            if "given" not in rule:  # said with the option's description, by the reader of options
                said = f"{HOLE} {re.sub('{.*?}', HOLE, rule)}, got {HOLE}"
                yield Sentence(said, "SettingError", "tuning.options.RULES")
        for name in VALIDATORS:
            module = self._modules[name]
            for function in module.functions.values():
                for raised, _ in _raises(function, frozenset(("ValueError",))):
                    for text in self._texts(raised.args[0], Scope(module, function)):
                        if text.startswith("must"):
                            rule, _, near = _tidy(text).partition(";")
                            said = f"{HOLE} {rule}, got {HOLE}{near and ';'}{near}"
                            yield Sentence(said, "SettingError", f"{name}.{function.name}")
                        elif " must " in text:
                            yield Sentence(_tidy(text), "SettingError", f"{name}.{function.name}")

    def _texts(self, node: ast.expr, scope: Scope) -> Texts:  # noqa: PLR0911, PLR0912  (a case for each kind of node)
        """Return the texts that an expression can be; a list's are those of its elements."""
        if scope.depth > DEEPEST:
            return UNKNOWN

        def follow(inner: ast.expr) -> Texts:
            return self._texts(inner, scope.deeper())

        match node:
            case ast.Constant(value=str(text)):
                return frozenset((text,))
            case ast.JoinedStr(values=parts):
                return _product([follow(part) for part in parts])
            case ast.FormattedValue(value=value, conversion=-1):
                known = isinstance(value, (ast.Name, ast.Call, ast.IfExp, ast.BoolOp))
                return follow(value) if known else UNKNOWN
            case ast.BinOp(op=ast.Add()):
                return _product([follow(node.left), follow(node.right)])
            case ast.IfExp(body=body, orelse=orelse):
                return follow(body) | follow(orelse)
            case ast.BoolOp(op=ast.Or(), values=[*firsts, last]):
                return _union(follow(value) for value in firsts) - {""} | follow(last)
            case ast.Starred(value=value) | ast.NamedExpr(value=value):
                return follow(value)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return _union(follow(element) for element in elements)
            case ast.ListComp(elt=element) | ast.GeneratorExp(elt=element):
                return follow(element)
            case ast.Name(id=name):
                return self._named(name, scope)
            case ast.Call():
                return self._called(node, scope)
            case ast.Attribute(attr="problems"):  # collected in this module, or handed on from another raise
                owners = scope.module.functions.values()
                return _union(
                    self._texts(value, scope.deeper(function=owner, arguments={}))
                    for owner in owners
                    for value in _collected(owner)
                )
        return UNKNOWN

    def _named(self, name: str, scope: Scope) -> Texts:
        if name in scope.arguments:
            return scope.arguments[name]
        given = list(_given(name, scope.function)) if scope.function else []
        if given:
            return _union(
                self._texts(value, scope.deeper()) if at is None else self._part(value, at, scope)
                for value, at in given
            )
        home = scope.module if name in scope.module.constants else self._home(name, scope.module)
        if home is None or name not in home.constants:
            return UNKNOWN
        return self._texts(home.constants[name], scope.deeper(module=home, function=None, arguments={}))

    def _called(self, call: ast.Call, scope: Scope) -> Texts:  # noqa: PLR0911  (as above)
        match call.func:
            case ast.Attribute(value=base, attr="replace" | "strip"):
                return self._texts(base, scope.deeper())
            case ast.Attribute(value=ast.Name(id="dict"), attr="fromkeys"):
                return self._texts(call.args[0], scope.deeper())
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return self._returned(name, call, scope)
            case ast.Name(id="list" | "tuple" | "filter"):
                return self._texts(call.args[-1], scope.deeper())
            case ast.Name(id="did_you_mean"):
                return frozenset((f"; did you mean {HOLE}?", ""))
            case ast.Name(id=name):
                return self._returned(name, call, scope)
        return UNKNOWN

    def _returned(self, name: str, call: ast.Call, scope: Scope, at: int | None = None) -> Texts:
        """Return the texts that a function of ours returns (or one element of them), called with these arguments."""
        home = scope.module if name in scope.module.functions else self._home(name, scope.module)
        function = home.functions.get(name) if home else None
        if home is None or function is None:
            return UNKNOWN
        names = [one.arg for one in function.args.args if one.arg != "self"]
        given = [*zip(names, call.args, strict=False), *((each.arg, each.value) for each in call.keywords if each.arg)]
        arguments = {each: self._texts(value, scope.deeper()) for each, value in given}
        for each, default in zip(reversed(names), reversed(function.args.defaults), strict=False):
            arguments.setdefault(each, self._texts(default, scope.deeper()))
        within = scope.deeper(module=home, function=function, arguments=arguments)
        values = (node.value for node in ast.walk(function) if isinstance(node, (ast.Return, ast.Yield)))
        chosen = [value.elts[at] if at is not None and isinstance(value, ast.Tuple) else value for value in values]
        texts = [self._texts(value, within) for value in chosen if value is not None and not _is_none(value)]
        return _union(texts) if texts else UNKNOWN

    def _part(self, value: ast.expr, at: int, scope: Scope) -> Texts:
        """Return the texts of one element of what is unpacked."""
        if isinstance(value, ast.Tuple):
            return self._texts(value.elts[at], scope.deeper())
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            return self._returned(value.func.id, value, scope, at)
        return UNKNOWN

    def _home(self, name: str, module: Module) -> Module | None:
        return self._modules.get(module.imports.get(name, ""))


def _collected(function: ast.FunctionDef) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="problems"), attr="append"), args=[value]):
                yield value


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _union(texts: Iterable[Texts]) -> Texts:
    return frozenset[str]().union(*texts)


def _raises(function: ast.FunctionDef, family: frozenset[str] = FAMILY) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(function):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=kind)) as call) if kind in family:
                yield call, kind


def _given(name: str, function: ast.FunctionDef) -> Iterator[tuple[ast.expr, int | None]]:
    """Yield what is assigned to a name, or appended to it; with a place where it is part of a tuple."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                yield value, None
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                places = [at for at, one in enumerate(targets) if isinstance(one, ast.Name) and one.id == name]
                for at in places:
                    yield value, at
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                yield value, None
            case ast.AugAssign(target=ast.Name(id=target), value=value) if target == name:
                yield value, None
            case ast.Call(func=ast.Attribute(value=ast.Name(id=target), attr="append" | "extend"), args=[value]):
                if target == name:
                    yield value, None
            case ast.For(target=ast.Name(id=target), iter=value) if target == name:
                yield value, None


def _product(parts: list[Texts]) -> Texts:
    whole = frozenset("".join(texts) for texts in itertools.islice(itertools.product(*map(sorted, parts)), MOST))
    return whole or UNKNOWN


def _tidy(text: str) -> str:
    """Return a text with one hole where several follow each other, and no full stop: main adds it."""
    while HOLE + HOLE in text:
        text = text.replace(HOLE + HOLE, HOLE)
    return text.removesuffix(".")


if __name__ == "__main__":
    for sentence in Reader().sentences():
        print(f"{sentence.where} {sentence.kind}\n    {sentence.text}")
