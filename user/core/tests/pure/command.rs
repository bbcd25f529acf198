// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands: what is taken, what is refused and with which error. D27 and D28 carry their ids.

use ondemand_core::daemon::command;
use ondemand_core::daemon::command::Command;
use ondemand_core::daemon::command::CopenAnswer;
use ondemand_core::daemon::command::Fill;
use ondemand_core::daemon::command::Mode;
use ondemand_core::daemon::command::MAX_COMMAND;
use ondemand_core::errno::Errno;
use ondemand_core::identity::Token;
use ondemand_core::identity::Version;
use ondemand_core::limits::Mark;
use ondemand_core::limits::Resource;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Command<'_>, Errno> {
    command::parse(text.as_bytes())
}

/// A size, and no token.
fn size(size: u64) -> CopenAnswer {
    let token = Token::UNTOLD;
    CopenAnswer::Version(Version { size, token })
}

fn copen(msg_id: u32, answer: CopenAnswer) -> Result<Command<'static>, Errno> {
    Ok(Command::Copen { msg_id, answer })
}

#[test]
fn well_formed() {
    for (text, expected) in [
        ("dir /var/cache", Command::Dir(b"/var/cache")),
        ("dir relative", Command::Dir(b"relative")),
        ("dir a b ", Command::Dir(b"a b ")),
        ("dir \t /x", Command::Dir(b"/x")),
        ("dir\x0b\x0c\r/x", Command::Dir(b"/x")),
        ("tag mycache", Command::Tag(b"mycache")),
        (
            "secctx system_u:r:x_t:s0",
            Command::SecurityContext(b"system_u:r:x_t:s0"),
        ),
        ("bind", Command::Bind(Mode::Plain)),
        ("bind ", Command::Bind(Mode::Plain)),
        ("bind ondemand", Command::Bind(Mode::OnDemand)),
        ("cull Dfile", Command::Cull(b"Dfile")),
        ("cull ...", Command::Cull(b"...")),
        ("inuse Dfile", Command::InUse(b"Dfile")),
        ("restore", Command::Restore),
        ("restore ", Command::Restore),
        ("timeout 0", Command::Timeout(0)),
        ("timeout 30", Command::Timeout(30)),
        ("timeout 86400", Command::Timeout(86_400)),
        ("fill direct", Command::Fill(Fill::Direct)),
        ("fill buffered", Command::Fill(Fill::Buffered)),
        ("batch 1", Command::Batch(1)),
        ("batch 256", Command::Batch(256)),
        ("fetch 0", Command::Fetch(0)),
        ("fetch 4096", Command::Fetch(4096)),
        ("fetch 67108864", Command::Fetch(64 << 20)),
    ] {
        assert_eq!(parse(text), Ok(expected), "{text:?}");
        assert_eq!(
            parse(&format!("{text}\n")),
            Ok(expected),
            "{text:?} and a newline"
        );
    }
}

#[test]
fn refused() {
    use Errno as E;
    for (text, expected) in [
        ("", E::EOPNOTSUPP),
        ("\n", E::EINVAL),
        ("\n\n", E::EINVAL),
        ("\nbind", E::EINVAL),
        (" ", E::EOPNOTSUPP),
        (" bind", E::EOPNOTSUPP),
        ("\tbind", E::EOPNOTSUPP),
        ("Bind", E::EOPNOTSUPP),
        ("bin", E::EOPNOTSUPP),
        ("binds", E::EOPNOTSUPP),
        ("copen,1", E::EOPNOTSUPP),
        ("quit now", E::EOPNOTSUPP),
        ("\0", E::EINVAL),
        ("quit\0", E::EINVAL),
        ("bind\0", E::EINVAL),
        ("dir /a\0b", E::EINVAL),
        ("bind\0\n", E::EINVAL),
        ("bind ondemand ", E::EINVAL),
        ("bind on-demand", E::EINVAL),
        ("bind ondemand ondemand", E::EINVAL),
        ("timeout", E::EINVAL),
        ("timeout ", E::EINVAL),
        ("timeout 86401", E::EINVAL),
        ("timeout 4294967296", E::EINVAL),
        ("timeout -1", E::EINVAL),
        ("timeout 010", E::EINVAL),
        ("timeout 0x10", E::EINVAL),
        ("timeout 30s", E::EINVAL),
        ("timeout 30 ", E::EINVAL),
        ("timeout 1 2", E::EINVAL),
        ("timeouts 1", E::EOPNOTSUPP),
        ("fill", E::EINVAL),
        ("fill ", E::EINVAL),
        ("fill Buffered", E::EINVAL),
        ("fill buffered ", E::EINVAL),
        ("fill direct buffered", E::EINVAL),
        ("fills direct", E::EOPNOTSUPP),
        ("identity", E::EINVAL),
        ("identity ", E::EINVAL),
        ("identity On", E::EINVAL),
        ("identity off", E::EINVAL),
        ("identity on ", E::EINVAL),
        ("batch", E::EINVAL),
        ("batch 0", E::EINVAL),
        ("batch 257", E::EINVAL),
        ("batch 4294967297", E::EINVAL),
        ("batch 016", E::EINVAL),
        ("batch -1", E::EINVAL),
        ("fetch", E::EINVAL),
        ("fetch 1", E::EINVAL),
        ("fetch 2048", E::EINVAL),
        ("fetch 4095", E::EINVAL),
        ("fetch 12288", E::EINVAL),
        ("fetch 134217728", E::EINVAL),
        ("fetch 4294967296", E::EINVAL),
        ("fetch 64k", E::EINVAL),
        ("fetch 0x1000", E::EINVAL),
        ("fetch 04096", E::EINVAL),
        ("dir", E::EINVAL),
        ("dir ", E::EINVAL),
        ("tag", E::EINVAL),
        ("secctx \t", E::EINVAL),
        ("cull", E::EINVAL),
        ("cull a/b", E::EINVAL),
        ("cull /", E::EINVAL),
        ("cull .", E::EINVAL),
        ("inuse ..", E::EINVAL),
        ("inuse ", E::EINVAL),
        ("inuse ../x", E::EINVAL),
    ] {
        assert_eq!(parse(text), Err(expected), "{text:?}");
    }
}

#[test]
fn length() {
    for (len, expected) in [
        (MAX_COMMAND, None),
        (MAX_COMMAND + 1, Some(Errno::EOPNOTSUPP)),
    ] {
        let text = format!("dir {}", "x".repeat(len - 4));
        assert_eq!(parse(&text).err(), expected, "{len} bytes");
    }
}

/// D28: what stood after the first newline was dropped, and so were surplus arguments.
#[test]
fn d28_nothing_is_dropped() {
    for text in [
        "restore\ngarbage",
        "restore\n\n",
        "dir /a\nb",
        "restore foo",
        "restore\nrestore\n",
    ] {
        assert_eq!(parse(text), Err(Errno::EINVAL), "{text:?}");
    }
}

/// D28: `debug` needs its mask.
#[test]
fn d28_debug() {
    for (mask, expected) in [
        ("0", Some(0)),
        ("7", Some(7)),
        ("4294967295", Some(u32::MAX)),
        ("4294967296", None),
        ("0x0", Some(0)),
        ("0xff", Some(255)),
        ("0XFf", Some(255)),
        ("0x00ff", Some(255)),
        ("0xffffffff", Some(u32::MAX)),
        ("0x100000000", None),
        ("0xffffffffffffffffffff", None),
        ("", None),
        ("0x", None),
        ("ff", None),
        ("010", None),
        ("-1", None),
        ("+1", None),
        ("1 ", None),
        ("0x-1", None),
    ] {
        let text = format!("debug {mask}");
        assert_eq!(parse(&text).ok(), expected.map(Command::Debug), "{mask:?}");
    }
    assert_eq!(parse("debug"), Err(Errno::EINVAL));
}

#[test]
fn limits() {
    for (argument, expected) in [
        ("0%", Some(0)),
        ("7%", Some(7)),
        ("07%", Some(7)),
        ("99%", Some(99)),
        ("100%", None),
        ("256%", None),
        ("257%", None),
        ("18446744073709551623%", None),
        ("%", None),
        ("7", None),
        ("", None),
        ("7%%", None),
        ("7 %", None),
        ("7% ", None),
        ("-1%", None),
        ("+1%", None),
        ("0x7%", None),
        ("7.5%", None),
    ] {
        for (word, resource, mark) in [
            ("brun", Resource::Blocks, Mark::Run),
            ("bcull", Resource::Blocks, Mark::Cull),
            ("bstop", Resource::Blocks, Mark::Stop),
            ("frun", Resource::Files, Mark::Run),
            ("fcull", Resource::Files, Mark::Cull),
            ("fstop", Resource::Files, Mark::Stop),
        ] {
            let expected = expected.ok_or(Errno::EINVAL).map(|percent| Command::Limit {
                resource,
                mark,
                percent,
            });
            assert_eq!(
                parse(&format!("{word} {argument}")),
                expected,
                "{word} {argument:?}"
            );
        }
    }
}

/// D28: the base was guessed, `010` was request 8. An id that is none names no request.
#[test]
fn d28_copen_ids() {
    for (id, expected) in [
        ("0", Some(0)),
        ("1", Some(1)),
        ("4294967295", Some(u32::MAX)),
        ("4294967296", None),
        ("18446744073709551616", None),
        ("", None),
        ("00", None),
        ("010", None),
        ("0x10", None),
        ("-1", None),
        ("+1", None),
        ("1 ", None),
        ("a", None),
    ] {
        let text = format!("copen {id},4096");
        match expected {
            Some(id) => assert_eq!(parse(&text), copen(id, size(4096))),
            None => assert_eq!(parse(&text), Err(Errno::EINVAL), "{id:?}"),
        }
    }
    // Without a comma the id may have been cut short: it names no request either.
    for text in [
        "copen",
        "copen ",
        "copen 1",
        "copen 1;2",
        "copen ,",
        "copen 1 ,2",
    ] {
        assert_eq!(parse(text), Err(Errno::EINVAL), "{text:?}");
    }
}

/// What follows a size is a token: bytes in hexadecimal, in either case. Whatever else is there says so, and
/// still names the request.
#[test]
fn copen_tokens() {
    let longest = "0f".repeat(64);
    for (text, bytes) in [
        ("00", &[0][..]),
        ("0a0B", &[10, 11]),
        ("FFfe", &[255, 254]),
        (&longest, &[15; 64]),
    ] {
        let token = Token::of_bytes(bytes).unwrap();
        let size = 4096;
        let answer = CopenAnswer::Version(Version { size, token });
        assert_eq!(parse(&format!("copen 1,4096,{text}")), copen(1, answer));
    }
    let too_long = "00".repeat(65);
    for text in [
        "", "0", "000", "0x00", "g0", "0 ", " 00", "-0", "+0", "00,", "00,00", &too_long,
    ] {
        let malformed = copen(1, CopenAnswer::Malformed);
        assert_eq!(
            parse(&format!("copen 1,4096,{text}")),
            malformed,
            "{text:?}"
        );
    }
    for text in ["copen 1,-2,00", "copen 1,,00", "copen 1,a,00"] {
        assert_eq!(parse(text), copen(1, CopenAnswer::Malformed), "{text:?}");
    }
}

/// D27: whatever is no size and no error number says so, and still names the request.
#[test]
fn d27_copen_answers() {
    use CopenAnswer::Malformed;
    let error = |raw| CopenAnswer::Error(Errno::from_raw(raw).unwrap());
    for (text, expected) in [
        ("0", size(0)),
        ("1", size(1)),
        ("4198400", size(4_198_400)),
        ("9223372036854771712", size((1 << 63) - 4096)),
        ("9223372036854775807", size((1 << 63) - 1)),
        ("9223372036854775808", Malformed),
        ("18446744073709551615", Malformed),
        ("18446744073709551616", Malformed),
        ("-1", error(-1)),
        ("-2", CopenAnswer::Error(Errno::ENOENT)),
        ("-4095", error(-4095)),
        ("-4096", Malformed),
        ("-2147483648", Malformed),
        ("-2147483649", Malformed),
        ("-4294967294", Malformed),
        ("-9223372036854775808", Malformed),
        ("-9223372036854775809", Malformed),
        ("-18446744073709551614", Malformed),
        ("-0", Malformed),
        ("-", Malformed),
        ("--1", Malformed),
        ("- 1", Malformed),
        ("+1", Malformed),
        ("", Malformed),
        (" 1", Malformed),
        ("1 ", Malformed),
        ("1,", Malformed),
        ("1,2", Malformed),
        (",", Malformed),
        ("00", Malformed),
        ("010", Malformed),
        ("0x10", Malformed),
        ("1e3", Malformed),
        ("4096k", Malformed),
    ] {
        assert_eq!(
            parse(&format!("copen 5,{text}")),
            copen(5, expected),
            "{text:?}"
        );
        assert_eq!(
            parse(&format!("copen 5,{text}\n")),
            copen(5, expected),
            "{text:?}"
        );
    }
}

/// Writes a command as a daemon would; a malformed answer has no one text.
fn to_text(command: &Command<'_>) -> Vec<u8> {
    let with = |word: &str, argument: &[u8]| [word.as_bytes(), b" ", argument].concat();
    match *command {
        Command::Dir(path) => with("dir", path),
        Command::Tag(name) => with("tag", name),
        Command::SecurityContext(context) => with("secctx", context),
        Command::Cull(name) => with("cull", name),
        Command::InUse(name) => with("inuse", name),
        Command::Identity => b"identity on".to_vec(),
        Command::Bind(Mode::Plain) => b"bind".to_vec(),
        Command::Bind(Mode::OnDemand) => b"bind ondemand".to_vec(),
        Command::Restore => b"restore".to_vec(),
        Command::Debug(mask) => format!("debug {mask}").into_bytes(),
        Command::Timeout(seconds) => format!("timeout {seconds}").into_bytes(),
        Command::Fetch(bytes) => format!("fetch {bytes}").into_bytes(),
        Command::Batch(count) => format!("batch {count}").into_bytes(),
        Command::Fill(Fill::Direct) => b"fill direct".to_vec(),
        Command::Fill(Fill::Buffered) => b"fill buffered".to_vec(),
        Command::Limit {
            resource,
            mark,
            percent,
        } => {
            let letter = match resource {
                Resource::Blocks => 'b',
                Resource::Files => 'f',
            };
            let mark = match mark {
                Mark::Run => "run",
                Mark::Cull => "cull",
                Mark::Stop => "stop",
            };
            format!("{letter}{mark} {percent}%").into_bytes()
        }
        Command::Copen { msg_id, answer } => match answer {
            CopenAnswer::Version(Version { size, token }) if token.is_told() => {
                let digits: String = token
                    .as_bytes()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                format!("copen {msg_id},{size},{digits}").into_bytes()
            }
            CopenAnswer::Version(Version { size, .. }) => {
                format!("copen {msg_id},{size}").into_bytes()
            }
            CopenAnswer::Error(error) => format!("copen {msg_id},{}", error.to_raw()).into_bytes(),
            CopenAnswer::Malformed => format!("copen {msg_id},").into_bytes(),
        },
    }
}

/// Text that is near enough to a command to get past the first word.
fn near_command() -> impl Strategy<Value = Vec<u8>> {
    let words = &[
        "bind", "brun", "bcull", "bstop", "copen", "cull", "debug", "dir", "frun", "fcull",
        "fstop", "inuse", "restore", "secctx", "tag", "",
    ][..];
    let argument = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "[-+0-9x,% \n]{0,24}".prop_map(String::into_bytes),
        (any::<i64>(), any::<i64>()).prop_map(|(a, b)| format!("{a},{b}").into_bytes()),
    ];
    (prop::sample::select(words), "[ \t\n]{0,2}", argument)
        .prop_map(|(word, blank, argument)| [word.as_bytes(), blank.as_bytes(), &argument].concat())
}

proptest! {
    #[test]
    fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..5000)) {
        let _ = command::parse(&text);
    }

    /// What is taken can be written in one way that means the same again.
    #[test]
    fn round_trip(text in near_command()) {
        match command::parse(&text) {
            Ok(parsed) => {
                let written = to_text(&parsed);
                prop_assert_eq!(command::parse(&written), Ok(parsed));
            }
            Err(error) => prop_assert!(matches!(error, Errno::EINVAL | Errno::EOPNOTSUPP)),
        }
    }

    #[test]
    fn copen_round_trip(msg_id: u32, bytes in 0..=i64::MAX.unsigned_abs(), raw in -4095..=-1) {
        for answer in [size(bytes), CopenAnswer::Error(Errno::from_raw(raw).unwrap())] {
            let command = Command::Copen { msg_id, answer };
            let text = to_text(&command);
            prop_assert_eq!(command::parse(&text), Ok(command));
        }
    }

    #[test]
    fn other_sizes_are_malformed(size in prop_oneof![i64::MIN..-4095, Just(i64::MIN), Just(-4096)]) {
        let text = format!("copen 0,{size}");
        let command = Command::Copen { msg_id: 0, answer: CopenAnswer::Malformed };
        prop_assert_eq!(command::parse(text.as_bytes()), Ok(command));
    }
}
