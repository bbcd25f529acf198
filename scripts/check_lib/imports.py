# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which module of the kernel crate imports which.

A module is a tuple of names, the crate's root is (). An import is any path that begins with `crate`, `$crate`,
`self` or `super`, in a `use` or elsewhere. What a module reaches without a path, by a method of a type that it
was given, is no import.
"""

import re

from . import rust_text

ROOT_FILE = "cachefiles_ondemand.rs"
_PATH = re.compile(r"(?<![\w:])(?:\$?crate|self|super)(?:\s*::\s*(?:super\b|[A-Za-z_]\w*|[{*]))+")
_INLINE = re.compile(r"\bmod\s+\w+\s*\{")


def module_of(path):
    if path == ROOT_FILE:
        return ()
    return tuple(path.removesuffix(".rs").removesuffix("/mod").split("/"))


def _inline_ranges(code):
    """(begin, end) of the bodies of modules within a file."""
    found = []
    for match in _INLINE.finditer(code):
        depth = 1
        at = match.end()
        while at < len(code) and depth:
            depth += (code[at] == "{") - (code[at] == "}")
            at += 1
        found.append((match.end(), at))
    return found


def imports(module, text):
    """(line, path) of each import, the path from the crate's root; None for one that cannot be told."""
    code = "\n".join(rust_text.code_lines(text))
    inline = _inline_ranges(code)
    for match in _PATH.finditer(code):
        line = code.count("\n", 0, match.start()) + 1
        words = [word for word in re.split(r"\s*::\s*", match.group()) if word]
        first, rest = words[0], words[1:]
        base = [] if first.endswith("crate") else list(module)
        # A module within the file has no place of its own: the first `super` leads to the file.
        depth = sum(begin <= match.start() < end for begin, end in inline)
        ups = (first == "super") + sum(word == "super" for word in rest)
        for _ in range(max(ups - depth, 0)):
            base = base[:-1]
        rest = [word for word in rest if word != "super"]
        if rest and rest[-1] == "{":
            yield line, None
        else:
            yield line, tuple(base + [word for word in rest if word != "*"])


def graph(texts):
    """{module: {module that it imports: line}} for {path: text}, and (path, line) of what cannot be told."""
    modules = {module_of(path): path for path in texts}
    edges, unclear = {}, []
    for path, text in texts.items():
        module = module_of(path)
        found = edges.setdefault(module, {})
        for line, target in imports(module, text):
            if target is None:
                unclear.append((path, line))
                continue
            item = target
            while target and target not in modules:
                target = target[:-1]
            # The crate's own item, of `module!`.
            if item == ("THIS_MODULE",):
                continue
            if target != module:
                found.setdefault(target, line)
    return edges, modules, unclear


def _strong(nodes, edges):
    """The sets of more than one node each of which leads to all others of its set."""

    def reach(start):
        seen, todo = set(), [start]
        while todo:
            for target in edges.get(todo.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    reached = {node: reach(node) for node in nodes}
    found = []
    for node in sorted(nodes):
        ring = {other for other in reached[node] if node in reached[other]}
        if len(ring) > 1 and ring not in found:
            found.append(ring)
    return found


def _folders(edges):
    """(folder, {module in it: {module in it that it imports: [(from, to, line)]}}), each module standing for all
    below it."""
    for parent in sorted({module[:depth] for module in edges for depth in range(len(module))}):
        depth = len(parent)
        inside = {m[: depth + 1]: {} for m in edges if m[:depth] == parent and len(m) > depth}
        for module, targets in edges.items():
            for target, line in targets.items():
                a, b = module[: depth + 1], target[: depth + 1]
                if a in inside and b in inside and a != b:
                    inside[a].setdefault(b, []).append((module, target, line))
        yield parent, inside


def _way(start, goal, inside):
    """The shortest way from one module to another, both included."""
    before, todo = {start: None}, [start]
    for name in todo:
        for target in sorted(inside[name]):
            if target not in before:
                before[target] = name
                todo.append(target)
    way = [goal]
    while way[0] != start:
        way.insert(0, before[way[0]])
    return way


def cycles(edges):
    """One cycle for each set of modules of one folder that import one another, as (names, [(from, to, line)]): the names
    in the order of the imports, and what makes the first import, which is the one that the fewest paths make. A
    folder's own module and those in it may import one another."""
    for _, inside in _folders(edges):
        for ring in _strong(inside, inside):
            among = {a: {b: found for b, found in inside[a].items() if b in ring} for a in ring}
            _, a, b = min((len(found), a, b) for a, targets in among.items() for b, found in targets.items())
            yield ["::".join(name) for name in [a, *_way(b, a, among)]], among[a][b]


def listing(edges):
    """A line a module, folder by folder, a module before those that it imports."""
    for _, inside in _folders(edges):
        left = dict(inside)
        while left:
            imported = {b for targets in left.values() for b in targets if b in left}
            for name in sorted(set(left) - imported) or sorted(left):
                targets = sorted("::".join(b) for b in left.pop(name))
                yield f"{'::'.join(name)}: {' '.join(targets)}".rstrip(": ")
