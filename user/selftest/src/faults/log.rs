// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the kernel said in a run: where the fault was, and reports of its own errors.

use anyhow::ensure;
use anyhow::Result;

use crate::harness::kmsg::KernelLog;
use crate::harness::kmsg::Line;

/// What the kernel begins with when it tells of a fault.
const FAULT: &str = "FAULT_INJECTION: forcing a failure";

/// What stands behind a function of the module.
const OURS: &str = "[cachefiles_ondemand]";

/// How many callers are shown.
const SHOWN: usize = 14;

/// The log of one run.
#[derive(Debug)]
pub struct RunLog {
    log: KernelLog,
    lines: Vec<Line>,
}

impl RunLog {
    /// Begins.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn begin() -> Result<Self> {
        Ok(RunLog {
            log: KernelLog::end()?,
            lines: Vec::new(),
        })
    }

    fn read(&mut self) -> &[Line] {
        self.lines.extend(self.log.lines());
        &self.lines
    }

    /// Whether a line holds `text`.
    pub fn says(&mut self, text: &str) -> bool {
        self.read().iter().any(|line| line.text.contains(text))
    }

    /// Fails if the kernel has reported an error of its own.
    ///
    /// # Errors
    ///
    /// It has; the message is what it said from then on.
    pub fn no_report(&mut self) -> Result<()> {
        let lines = self.read();
        let first = lines.iter().position(|line| line.report);
        let told: Vec<&str> = lines[first.unwrap_or(lines.len())..]
            .iter()
            .take(60)
            .map(|line| line.text.as_str())
            .collect();
        ensure!(first.is_none(), "the kernel reported:\n{}", told.join("\n"));
        Ok(())
    }

    /// The callers of what failed, innermost first, as far as the log tells.
    pub fn callers(&mut self) -> Vec<String> {
        let texts = self.read().iter().map(|line| line.text.as_str());
        callers(texts)
    }

    /// What the module and file systems have said.
    pub fn messages(&mut self) -> Vec<String> {
        let words = ["cachefiles", "erofs", "EXT4-fs", "JBD2", "I/O error"];
        self.read()
            .iter()
            .map(|line| line.text.clone())
            .filter(|text| words.iter().any(|word| text.contains(word)) && !text.contains(OURS))
            .take(10)
            .collect()
    }
}

/// The function of the module that the fault was in, with the place in it; the innermost function if
/// none was.
#[must_use]
pub fn place(callers: &[String]) -> Option<&str> {
    let ours = callers.iter().find(|caller| caller.ends_with(OURS));
    ours.or(callers.first()).map(String::as_str)
}

/// The callers as one line, without those that every fault has.
#[must_use]
pub fn shown(callers: &[String]) -> String {
    const EVERYWHERE: &[&str] = &["dump_stack", "should_fail", "__dump_stack"];
    let shown: Vec<&str> = callers
        .iter()
        .map(|caller| caller.trim_end_matches(OURS).trim())
        .filter(|caller| !EVERYWHERE.iter().any(|part| caller.contains(part)))
        .take(SHOWN)
        .collect();
    shown.join(" < ")
}

/// The lines of the stack that follows the first fault.
fn callers<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    lines
        .skip_while(|line| !line.contains(FAULT))
        .skip_while(|line| !line.contains("<TASK>") && !line.contains("Call Trace:"))
        .skip(1)
        .take_while(|line| !line.contains("</TASK>"))
        .map(str::trim)
        // Those with a question mark were only found on the stack.
        .filter(|line| line.contains("+0x") && !line.starts_with('?'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
erofs: mounted
FAULT_INJECTION: forcing a failure.
CPU: 1 UID: 0 PID: 78 Comm: kworker/u8:1
Call Trace:
 <TASK>
 dump_stack_lvl+0x64/0x80
 should_fail_ex+0x21/0x30
 ? old+0x1/0x2
 __kmalloc_noprof+0x4f/0x2e0
 _RNvMs_look_up+0x48/0x90 [cachefiles_ondemand]
 process_one_work+0x1/0x2
 </TASK>
 later+0x1/0x2
";

    #[test]
    fn a_fault_is_at_the_innermost_function_of_the_module() {
        let found = callers(LOG.lines());
        assert_eq!(found.len(), 5);
        let at = "_RNvMs_look_up+0x48/0x90 [cachefiles_ondemand]";
        assert_eq!(place(&found), Some(at));
        let line = shown(&found);
        assert!(line.starts_with("__kmalloc_noprof+0x4f/0x2e0 < _RNvMs_look_up"));
        assert!(callers(["nothing"].into_iter()).is_empty());
    }
}
