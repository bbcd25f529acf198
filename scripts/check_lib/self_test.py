# SPDX-License-Identifier: MIT OR Apache-2.0
"""Samples that break one rule each, and samples that break none."""

GPL = "// SPDX-License-Identifier: GPL-2.0\n"
PURE = "// SPDX-License-Identifier: GPL-2.0 OR MIT\n"
USER = "// SPDX-License-Identifier: MIT OR Apache-2.0\n"

# rule, {path: text}
BAD_TOGETHER = [
    ("imports", {"cache.rs": GPL + "use crate::io::A;\n", "io.rs": GPL + "fn f() {\n    crate::cache::g()\n}\n"}),
    ("imports", {"a/b.rs": GPL + "use super::c::A;\n", "a/c.rs": GPL + "use crate::a::b;\n", "a/mod.rs": GPL}),
    (
        "imports",
        {"a/b.rs": GPL + "use crate::c::d::A;\n", "c/d.rs": GPL, "c/e.rs": GPL + "use crate::a::f::A;\n", "a/f.rs": GPL},
    ),
    (
        "imports",
        {
            "a.rs": GPL + "use crate::b::A;\n",
            "b.rs": GPL + "macro_rules! m {\n    () => {\n        $crate::c::A\n    };\n}\n",
            "c.rs": GPL + "mod inside {\n    use super::super::a;\n}\n",
        },
    ),
    ("imports", {"kcompat/fs.rs": GPL + "use crate::object::Object;\n", "object.rs": GPL}),
    ("imports", {"abi/mod.rs": GPL + "use crate::vfs::path::Path;\n", "vfs/path.rs": GPL}),
    ("imports", {"errno.rs": PURE + "use crate::key::Key;\n", "key.rs": PURE}),
    ("imports", {"cache.rs": GPL + "use crate::{io::A, object::B};\n", "io.rs": GPL, "object.rs": GPL}),
    ("pure", {"store/key.rs": PURE + "use crate::store::space::A;\n", "store/space.rs": GPL}),
]

# rule, path, text
BAD = [
    ("rings", "cache.rs", GPL + "fn f() {\n    // SAFETY: no.\n    unsafe { g() }\n}\n"),
    ("rings", "io.rs", GPL + "use crate::bindings::file;\n"),
    ("rings", "helper.c", GPL + "int x;\n"),
    ("rings", "daemon/helper.h", GPL + "int x;\n"),
    ("safety", "vfs/a.rs", GPL + "fn f() {\n    unsafe { g() }\n}\n"),
    ("safety", "vfs/b.rs", GPL + "unsafe impl Send for A {}\n"),
    ("safety", "vfs/c.rs", GPL + "/// Does it.\npub unsafe fn f() {}\n"),
    ("safety", "vfs/d.rs", GPL + "// SAFETY: of another line.\nlet a = 1;\nlet b = unsafe { g() };\n"),
    ("safety", "vfs/e.rs", GPL + 'let s = "SAFETY: in a string";\nunsafe { g() };\n'),
    ("safety", "user/x/src/a.rs", USER + "unsafe extern \"C\" fn f(x: u8) {}\n"),
    ("safety", "vfs/g.rs", GPL + "impl A {\n    unsafe extern \"C\" fn f(x: u8) {}\n}\n"),
    ("pure", "errno.rs", PURE + "use kernel::error::Error;\n"),
    ("pure", "ondemand/state.rs", PURE + "use crate::cache::Cache;\n"),
    ("pure", "more.rs", PURE + "use std::io;\n"),
    ("pure", "store/key.rs", GPL + "use core::fmt;\n"),
    ("guards", "object/a.rs", GPL + "fn f(&self) {\n    if self.a.lock().b.is_some() {\n        g();\n    }\n}\n"),
    ("guards", "vfs/k.rs", GPL + "fn f(&self) {\n    while !self\n        .a\n        .lock()\n        .b\n    {\n        g();\n    }\n}\n"),
    ("guards", "cache.rs", GPL + "fn f() {\n    if a {\n    } else if any(|b| { b.try_lock().c }) {\n    }\n}\n"),
    ("guards", "io.rs", GPL + "fn f() {\n    match a {\n        b if c.lock().d => e(),\n        _ => {}\n    }\n}\n"),
    ("spdx", "cache.rs", "//! No licence.\n"),
    ("spdx", "object.rs", USER + "//! The wrong one.\n"),
    ("spdx", "user/x/src/lib.rs", GPL + "//! The wrong one.\n"),
    ("spdx", "scripts/tool", "#!/bin/bash\necho\n"),
    ("length", "object.rs", GPL + "//\n" * 600),
]

GOOD = [
    ("cache.rs", GPL + '// unsafe and bindings:: in a comment\nlet s = "unsafe bindings::";\n'),
    ("lib.rs", GPL + "#![deny(unsafe_code)]\n#![deny(unsafe_op_in_unsafe_fn)]\n"),
    ("vfs/a.rs", GPL + "// SAFETY: the caller holds\n// the lock.\nlet a =\n    unsafe { g() };\n"),
    ("vfs/b.rs", GPL + "// SAFETY: it is a number.\n#[cfg(x)]\nunsafe impl Send for A {}\n"),
    ("vfs/c.rs", GPL + "/// Does it.\n///\n/// # Safety\n///\n/// Hold it.\n#[inline]\npub unsafe fn f() {}\n"),
    ("vfs/d.rs", GPL + 'struct A {\n    f: unsafe extern "C" fn(u8) -> u8,\n}\n'),
    ("vfs/e.rs", GPL + "let a = x\n    // SAFETY: it is.\n    .map(|y| unsafe { g(y) });\n"),
    ("vfs/f.rs", GPL + "let c = '\"'; // \"\n// SAFETY: yes.\nunsafe { g::<'a>() };\n"),
    ("vfs/g.rs", GPL + "// SAFETY: counted.\nunsafe impl B for A {\n    unsafe fn f() {}\n}\n"),
    ("vfs/h.rs", GPL + "/// # Safety\n///\n/// Called by C.\nimpl A {\n    unsafe extern \"C\" fn f() {}\n}\n"),
    ("object/a.rs", GPL + "fn f(&self) {\n    if let Some(b) = &self.a.lock().b {\n        g(b);\n    }\n}\n"),
    ("object/b.rs", GPL + "fn f(&self) {\n    let a = self.a.lock();\n    if a.b {\n        self.c.lock().d();\n    }\n}\n"),
    ("object/c.rs", GPL + "fn f(&self) {\n    while let Some(b) = self.a.lock().pop() {\n        // if a.lock() {\n        g(b);\n    }\n}\n"),
    ("errno.rs", PURE + "use core::fmt;\n"),
    ("store/key.rs", PURE + "use core::fmt;\nuse crate::errno::Errno;\n//! As crate::object::Object.\n"),
    ("object/d.rs", GPL + "use super::Object;\nmod inside {\n    use super::f;\n}\n"),
    ("vfs/l.rs", GPL + "use crate::errno::Errno;\nuse crate::kcompat::fs;\nowner: crate::THIS_MODULE.as_ptr(),\n"),
    ("kcompat/fs.rs", GPL + "use crate::errno::Errno;\n"),
    ("shim/fs.c", "/* SPDX-License-Identifier: GPL-2.0 */\nint x;\n"),
    ("abi/cachefiles.h", "/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */\nint x;\n"),
    ("object.rs", GPL + "mod d;\nuse self::d::Part;\n" + "//\n" * 597),
]


def run(problems):
    """Prints what a check failed to see or saw without reason; 1 if anything."""
    wrong = 0
    for rule, files in [*BAD_TOGETHER, *((rule, {path: text}) for rule, path, text in BAD)]:
        rules = {found[0] for found in problems(files)}
        if rule not in rules:
            wrong += 1
            print(f"not seen: {rule} in {str(files)[:200]}")
    for found in problems(dict(GOOD)):
        wrong += 1
        print(f"seen without reason: {found}")
    print(f"check: self-test, {len(BAD) + len(BAD_TOGETHER)} bad and {len(GOOD)} good samples, {wrong} wrong answers")
    return 1 if wrong else 0
