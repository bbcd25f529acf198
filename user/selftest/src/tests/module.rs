// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module itself: its tracepoints, and a second backend beside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Message;

use crate::harness::kmsg::KernelLog;
use crate::harness::skip;
use crate::harness::Context;
use crate::harness::Event;
use crate::harness::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d29_tracepoints",
        "trace lines that cannot be matched with messages",
        tracepoints,
    ),
    Test::new(
        "module_second_backend",
        "two backends for one device",
        second_backend,
    ),
];

const TRACING: &str = "/sys/kernel/tracing";

/// The value of `name=` in a line of the trace.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn tracepoints(t: &Context) -> Result<()> {
    let events = Path::new(TRACING).join("events/ondemand");
    if !events.is_dir() {
        return skip("no trace events of the system ondemand");
    }
    for event in ["enqueue", "deliver", "answer", "complete", "state"] {
        let event = events.join(format!("ondemand_{event}"));
        ensure!(event.is_dir(), "no {}", event.display());
    }
    fs::write(Path::new(TRACING).join("trace"), "")?;
    fs::write(events.join("enable"), "1")?;
    let traced = traced_mount(t);
    fs::write(events.join("enable"), "0")?;
    let log = traced?;
    let trace = fs::read_to_string(Path::new(TRACING).join("trace"))?;
    let line = |event: &str, msg_id: u32, opcode: &str| {
        let msg_id = msg_id.to_string();
        trace
            .lines()
            .find(|line| {
                line.contains(&format!(" ondemand_{event}: "))
                    && field(line, "msg_id") == Some(&msg_id)
                    && field(line, "opcode") == Some(opcode)
            })
            .with_context(|| format!("no {event} of {opcode} {msg_id} in\n{trace}"))
    };
    ensure!(!log.is_empty(), "no messages");
    for event in &log {
        let (msg_id, object_id, opcode) = match event {
            Event::Open(msg_id, object_id, _) => (*msg_id, *object_id, "OPEN"),
            Event::Read(msg_id, object_id, ..) => (*msg_id, *object_id, "READ"),
            Event::Close(msg_id, object_id) => (*msg_id, *object_id, "CLOSE"),
        };
        line("enqueue", msg_id, opcode)?;
        let mut steps = vec!["deliver"];
        if opcode != "CLOSE" {
            steps.extend(["answer", "complete"]);
        }
        for step in steps {
            let line = line(step, msg_id, opcode)?;
            let id = field(line, "object_id");
            ensure!(
                id == Some(&object_id.to_string()),
                "object_id of {opcode} {msg_id} is {object_id}: {line}"
            );
        }
    }
    Ok(())
}

/// Mounts, reads and unmounts; returns the messages.
fn traced_mount(t: &Context) -> Result<Vec<Event>> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    let mut reader = t.reader(&at, 0, 256 << 10)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let mut umount = t.unmount(&at)?;
    let mut closed = false;
    daemon
        .serve_with(&mut umount, |daemon, message| {
            closed |= matches!(message, Message::Close(_));
            daemon.answer(message)
        })?
        .ok("umount")?;
    if !closed {
        daemon.expect_close()?;
    }
    Ok(daemon.log)
}

fn second_backend(t: &Context) -> Result<()> {
    let Some(module) = &t.settings.other_module else {
        return skip("--other-module is not given");
    };
    let log = KernelLog::end()?;
    let c_is_loaded = Path::new("/sys/module/cachefiles").is_dir();
    let output = Command::new("insmod").arg(module).output();
    let output = output.context("cannot run insmod")?;
    ensure!(
        !output.status.success(),
        "a second backend could be inserted"
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        ["File exists", "resource busy"]
            .iter()
            .any(|text| said.contains(text)),
        "insmod: {said}"
    );
    if c_is_loaded {
        // The C module does not look first; ours must.
        for line in log.lines() {
            ensure!(!line.text.contains("duplicate"), "{}", line.text);
        }
    }
    // The first backend does not care.
    t.mounted_image("small").map(drop)
}
