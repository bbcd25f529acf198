# SPDX-License-Identifier: MIT OR Apache-2.0
"""Rust source as text: what is code, what is comment, where unsafe stands."""

import re

# Comments (block comments may nest one level), strings, raw strings, characters.
# A lifetime is no character: 'a' has its closing quote, 'a has not.
_TOKENS = re.compile(
    r"""
    (?P<comment> //[^\n]* | /\*(?:/\*.*?\*/|.)*?\*/ )
  | (?P<string>  b?r(?P<hashes>\#*)".*?"(?P=hashes) | [bc]?"(?:\\.|[^"\\])*" )
  | (?P<char>    b?'(?:\\(?:u\{[0-9a-fA-F_]*\}|x..|.)|[^'\\\n])' )
    """,
    re.X | re.S,
)


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


def code_lines(text):
    """The lines, with comments, strings and characters replaced by spaces."""
    return _TOKENS.sub(lambda m: _blank(m.group()), text).split("\n")


def comment_lines(text):
    """The lines, with everything but comments replaced by spaces."""
    out, at = [], 0
    for match in _TOKENS.finditer(text):
        out.append(_blank(text[at : match.start()]))
        out.append(match.group() if match.group("comment") else _blank(match.group()))
        at = match.end()
    out.append(_blank(text[at:]))
    return "".join(out).split("\n")


def unsafe_tokens(text):
    """(line, kind) of every `unsafe` that must be answered for.

    `unsafe extern "C" fn(..)` as a type, without a name, asks for nothing.
    """
    code = "\n".join(code_lines(text))
    found = []
    for match in re.finditer(r"\bunsafe\b", code):
        rest = code[match.end() :]
        line = code.count("\n", 0, match.start()) + 1
        if re.match(r"\s*(extern\s+)?fn\s*\(", rest):
            continue
        if re.match(r"\s*(extern\s+)?fn\b", rest):
            kind = "unsafe fn"
        elif re.match(r"\s*impl\b", rest):
            kind = "unsafe impl"
        elif re.match(r"\s*trait\b", rest):
            kind = "unsafe trait"
        elif re.match(r"\s*(extern\s*)?\{", rest):
            kind = "unsafe block"
        else:
            continue
        found.append((line, kind))
    return found


def guards_in_conditions(text):
    """The lines of `if` and `while` whose condition takes a lock.

    A guard that is a temporary of a plain condition is dropped before the body; one that is a temporary of
    `if let` or `while let` is not.
    """
    code = "\n".join(code_lines(text))
    found = []
    for match in re.finditer(r"\b(?:if|while)\b(?!\s+let\b)", code):
        depth = 0
        for at in range(match.end(), len(code)):
            char = code[at]
            depth += (char in "([") - (char in ")]")
            # The body, or the arm of a `match` whose guard it is.
            if depth <= 0 and (char == "{" or code.startswith("=>", at)):
                break
        if re.search(r"\.\s*(?:try_)?lock\s*\(", code[match.end() : at]):
            found.append(code.count("\n", 0, match.start()) + 1)
    return found


def _documented(line, code, comments, wanted):
    """Whether a comment with one of `wanted` stands on `line` (from 0) or right before it."""
    if any(w in comments[line] for w in wanted):
        return True
    at, steps = line - 1, 0
    while at >= 0:
        if comments[at].strip() and not code[at].strip():
            block = []
            while at >= 0 and comments[at].strip() and not code[at].strip():
                block.append(comments[at])
                at -= 1
            if any(w in text for text in block for w in wanted):
                return True
            continue
        stripped = code[at].strip()
        attribute = stripped.startswith("#[") or stripped.startswith("#![")
        starts_with_dot = code[at + 1].strip().startswith(".")
        opens = re.search(r"(=|\(|=>|\breturn|&&|\|\||\[|\|)\s*$", stripped)
        if attribute or opens or starts_with_dot:
            steps += 1
            if steps > 8:
                return False
            at -= 1
            continue
        return False
    return False


def _indent(line):
    return len(line) - len(line.lstrip())


def _enclosing_impl(line, code):
    """The line of the `impl` that `line` is directly in, or None."""
    here = _indent(code[line])
    for at in range(line - 1, -1, -1):
        if code[at].strip() and _indent(code[at]) < here:
            # The end of a head that was broken into several lines.
            if re.match(r"\s*(where\b|\{|\))", code[at]):
                continue
            return at if re.match(r"\s*(unsafe\s+)?impl\b", code[at]) else None
    return None


def _head(impl, code):
    """The text from `impl` to its opening brace, without `for<'a>`."""
    text = ""
    for line in code[impl:]:
        text += line + " "
        if "{" in line:
            break
    return re.sub(r"\bfor\s*<", "<", text.split("{")[0])


def undocumented_unsafe(text):
    """(line, kind) of every unsafe without a reason right before it."""
    code, comments = code_lines(text), comment_lines(text)
    missing = []
    for line, kind in unsafe_tokens(text):
        impl = _enclosing_impl(line - 1, code) if kind == "unsafe fn" else None
        if impl is not None:
            # A method of a trait has the trait's contract; a group of callbacks
            # may have one for all, above their impl block.
            if re.search(r"\bfor\b", _head(impl, code)) or _documented(impl, code, comments, ("# Safety",)):
                continue
        wanted = ("SAFETY:", "# Safety") if kind in ("unsafe fn", "unsafe trait") else ("SAFETY:",)
        if not _documented(line - 1, code, comments, wanted):
            missing.append((line, kind))
    return missing
