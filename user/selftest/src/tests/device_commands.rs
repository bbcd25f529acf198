// SPDX-License-Identifier: MIT OR Apache-2.0

//! The device: opening it, and the text that is written to it.

use std::process::Stdio;

use anyhow::ensure;
use anyhow::Result;
use rustix::io::Errno;

use crate::harness::errno_of;
use crate::harness::expect_errno;
use crate::harness::raw;
use crate::harness::Context;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "device_open_twice",
        "two daemons with one cache",
        open_twice,
    ),
    Test::new(
        "device_open_without_capability",
        "a cache for anybody who may open the file",
        open_without_capability,
    ),
    Test::new(
        "device_read_before_bind",
        "a daemon that blocks or fails before it is bound",
        read_before_bind,
    ),
    Test::new(
        "device_command_syntax",
        "commands that are taken for others, or accepted in any form",
        command_syntax,
    ),
    Test::new(
        "d28_surplus_text",
        "text after a newline or an argument that is dropped silently",
        surplus_text,
    ),
    Test::new("device_limits", "limits that are out of order", limits),
    Test::new(
        "device_bad_pointer",
        "a write from memory that cannot be read",
        bad_pointer,
    ),
    Test::new(
        "device_command_once",
        "a second dir, tag or bind that is accepted",
        once,
    ),
];

fn open_twice(t: &Context) -> Result<()> {
    let device = t.device()?;
    let second = errno_of(t.device())?;
    ensure!(second == Some(Errno::BUSY), "second open: {second:?}");
    drop(device);
    t.device()?;
    Ok(())
}

fn open_without_capability(t: &Context) -> Result<()> {
    let path = t.settings.device.to_string_lossy();
    let mut task = Task::start(&["open-device", &path], Stdio::null())?;
    task.wait(SOON)?
        .fails("open without CAP_SYS_ADMIN", &[Errno::PERM])
}

fn read_before_bind(t: &Context) -> Result<()> {
    let device = t.device()?;
    let mut buffer = [0; 1024];
    let len = device.read_bytes(&mut buffer)?;
    ensure!(len == 0, "read {len} bytes before bind");
    Ok(())
}

/// Writes commands and compares each result with what is expected: `None` is the full length.
fn try_commands(t: &Context, cases: &[(&[u8], Option<Errno>)]) -> Result<()> {
    let daemon = t.daemon(&[])?;
    for (command, expected) in cases {
        let shown = command[..command.len().min(40)].escape_ascii();
        match (daemon.device.write_bytes(command), expected) {
            (result, Some(errno)) => expect_errno(format!("\"{shown}\""), result, &[*errno])?,
            (result, None) => {
                let len = result.map_err(|errno| anyhow::anyhow!("\"{shown}\": {errno}"))?;
                ensure!(len == command.len(), "\"{shown}\" returned {len}");
            }
        }
    }
    Ok(())
}

fn command_syntax(t: &Context) -> Result<()> {
    let longest = [b'x'; 4095];
    let page = [b'x'; 4096];
    let more = [b'x'; 5000];
    try_commands(
        t,
        &[
            (b"", Some(Errno::OPNOTSUPP)),
            (b"\n", Some(Errno::INVAL)),
            (b"\0", Some(Errno::INVAL)),
            (b"restore\0", Some(Errno::INVAL)),
            (b"restor", Some(Errno::OPNOTSUPP)),
            (b"restored", Some(Errno::OPNOTSUPP)),
            (b"RESTORE", Some(Errno::OPNOTSUPP)),
            (b" restore", Some(Errno::OPNOTSUPP)),
            (b"restore", None),
            (b"restore\n", None),
            (b"restore ", None),
            (b"debug 0", None),
            (b"debug \t 0\n", None),
            (b"debug 0x0", None),
            (b"debug x", Some(Errno::INVAL)),
            (b"copen", Some(Errno::INVAL)),
            (b"copen 1", Some(Errno::INVAL)),
            (b"copen ,1", Some(Errno::INVAL)),
            (b"copen x,1", Some(Errno::INVAL)),
            (b"copen 1,1", Some(Errno::INVAL)),
            (b"copen 4294967296,1", Some(Errno::INVAL)),
            (b"cull a/b", Some(Errno::INVAL)),
            (b"inuse a/b", Some(Errno::INVAL)),
            (&longest, Some(Errno::OPNOTSUPP)),
            (&page, Some(Errno::OPNOTSUPP)),
            (&more, Some(Errno::OPNOTSUPP)),
        ],
    )
}

fn surplus_text(t: &Context) -> Result<()> {
    try_commands(
        t,
        &[
            (b"restore\ngarbage", Some(Errno::INVAL)),
            (b"restore\n\n", Some(Errno::INVAL)),
            (b"restore now", Some(Errno::INVAL)),
            (b"debug", Some(Errno::INVAL)),
            (b"debug 1 2", Some(Errno::INVAL)),
            (b"debug 010", Some(Errno::INVAL)),
            (b"restore", None),
        ],
    )
}

fn limits(t: &Context) -> Result<()> {
    let device = t.device()?;
    let write = |text: &str| device.write_bytes(text.as_bytes());
    // The defaults are 7, 5 and 1 per cent.
    for refused in [
        "brun",
        "brun 7",
        "brun %",
        "brun 7%%",
        "brun -7%",
        "brun x%",
        "brun 100%",
        "brun 101%",
        "brun 5%",
        "bcull 7%",
        "bcull 1%",
        "bstop 5%",
        "frun 5%",
        "fcull 7%",
        "fcull 1%",
        "fstop 5%",
        "frun 4294967303%",
    ] {
        expect_errno(refused, write(refused), &[Errno::INVAL])?;
    }
    for accepted in [
        "brun 99%",
        "bcull 98%",
        "bstop 97%",
        "bstop 0%",
        "bcull 1%",
        "brun 2%",
        "frun 07%",
        "fcull 6%",
        "fstop 5%\n",
    ] {
        let len = write(accepted).map_err(|errno| anyhow::anyhow!("{accepted}: {errno}"))?;
        ensure!(len == accepted.len(), "{accepted}: {len}");
    }
    Ok(())
}

fn bad_pointer(t: &Context) -> Result<()> {
    let daemon = t.daemon(&[])?;
    let page = raw::ForbiddenPage::new()?;
    let written = raw::write_from(&daemon.device, &page, 16);
    expect_errno("write", written, &[Errno::FAULT])?;
    let written = raw::write_from(&daemon.device, &page, 4096);
    expect_errno("write of 4096 bytes", written, &[Errno::OPNOTSUPP])?;
    daemon.restore()
}

fn once(t: &Context) -> Result<()> {
    let device = t.device()?;
    let dir = t.new_dir()?;
    let command = format!("dir {}", dir.display());
    let write = |text: &str| device.write_bytes(text.as_bytes());
    write(&command)?;
    expect_errno("second dir", write(&command), &[Errno::EXIST])?;
    write("tag one")?;
    expect_errno("second tag", write("tag two"), &[Errno::EXIST])?;
    write("bind ondemand")?;
    expect_errno("second bind", write("bind ondemand"), &[Errno::BUSY])?;
    Ok(())
}
