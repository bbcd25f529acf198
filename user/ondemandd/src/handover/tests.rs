// SPDX-License-Identifier: MIT OR Apache-2.0

//! Both ends of the socket, in one process.

use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::io::Write;

use rustix::io::FdFlags;

use super::*;

/// The deadline of what happens at once, on this machine.
fn soon() -> Duration {
    ondemand_deadline::scaled(Duration::from_secs(5))
}
const AT_ONCE: Duration = Duration::ZERO;

fn file_with(text: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn text_of(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn both_descriptors_arrive_in_order_and_close_on_exec() {
    for begin in [Begin::First, Begin::Restore, Begin::OnGo] {
        let (keeper, worker) = Channel::pair().unwrap();
        let (device, counters) = (file_with("device"), file_with("counters"));
        keeper
            .send_device(device.as_fd(), counters.as_fd(), begin)
            .unwrap();
        let got = worker.receive_device(soon()).unwrap();
        assert_eq!(got.begin, begin);
        for fd in [&got.device, &got.counters] {
            assert_eq!(rustix::io::fcntl_getfd(fd).unwrap(), FdFlags::CLOEXEC);
        }
        assert_eq!(text_of(got.device), "device");
        assert_eq!(text_of(got.counters), "counters");

        worker.send_word(&Word::Ready).unwrap();
        assert_eq!(keeper.receive_word(soon()).unwrap(), Word::Ready);
    }
}

#[test]
fn a_successor_says_how_it_is_and_is_told_when_to_begin() {
    let (keeper, worker) = Channel::pair().unwrap();
    for word in [
        Word::Prepared { resumes: 0 },
        Word::Prepared { resumes: 255 },
        Word::Failed(String::new()),
        Word::Failed("no \u{fc}ber-source".to_owned()),
    ] {
        worker.send_word(&word).unwrap();
        assert_eq!(keeper.receive_word(soon()).unwrap(), word);
    }
    let long = "x".repeat(2 * LONGEST_REASON);
    worker.send_word(&Word::Failed(long.clone())).unwrap();
    let cut = Word::Failed(long[..LONGEST_REASON].to_owned());
    assert_eq!(keeper.receive_word(soon()).unwrap(), cut);

    keeper.send_go().unwrap();
    worker.receive_go().unwrap();
    // Anything else is no permission, and neither is the end.
    keeper.send_word(&Word::Ready).unwrap();
    assert!(matches!(worker.receive_go(), Err(HandoverError::Malformed)));
    drop(keeper);
    assert!(matches!(worker.receive_go(), Err(HandoverError::Closed)));
}

#[test]
fn the_other_sides_end_is_seen() {
    let (keeper, worker) = Channel::pair().unwrap();
    assert!(matches!(
        keeper.receive_word(AT_ONCE),
        Err(HandoverError::TimedOut(_))
    ));
    drop(worker);
    keeper.wait_for_end().unwrap();
    assert!(matches!(
        keeper.receive_word(soon()),
        Err(HandoverError::Closed)
    ));
    assert!(matches!(
        keeper.send_word(&Word::Ready),
        Err(HandoverError::Send(Errno::PIPE))
    ));
}

#[test]
fn other_packets_are_refused_and_their_descriptors_closed() {
    let (keeper, worker) = Channel::pair().unwrap();
    keeper.send_word(&Word::Ready).unwrap();
    assert!(matches!(
        worker.receive_device(soon()),
        Err(HandoverError::Malformed)
    ));

    rustix::io::write(&keeper, b"ONDD\0\x02\0\0").unwrap();
    assert!(matches!(
        worker.receive_device(soon()),
        Err(HandoverError::Malformed)
    ));

    // The right words without the descriptors.
    rustix::io::write(&keeper, &head(KIND_DEVICE, 0)).unwrap();
    assert!(matches!(
        worker.receive_device(soon()),
        Err(HandoverError::Descriptors(0))
    ));

    // A descriptor in a packet that is cut: both ends of a pipe are closed afterwards.
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    passing::send(&keeper, &[0; 2 * LONGEST_REASON], &[writer.as_fd()]).unwrap();
    drop(writer);
    assert!(matches!(
        worker.receive_device(soon()),
        Err(HandoverError::Malformed)
    ));
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
}
