// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the module puts into a daemon's buffer, the daemon's library reads as it was meant.
//!
//! Both sides were written apart from each other, from the UAPI header. Would catch: a field in
//! another place, a length that counts otherwise, a NUL too many or too few.

use cachefiles_proto::Packet;
use cachefiles_proto::Payload;
use cachefiles_proto::MAX_MESSAGE_LEN;
use ondemand_core::ondemand::message;
use ondemand_core::ondemand::message::Message;
use proptest::prelude::*;

#[test]
fn every_message_fits_the_buffer_that_daemons_have() {
    const { assert!(message::MAX <= MAX_MESSAGE_LEN) };
}

/// Encodes into a buffer that fits exactly, and makes sure that one byte less does not do.
fn encode(message: &Message<'_>, msg_id: u32, object_id: u32) -> Vec<u8> {
    let mut buffer = vec![0xee; message.size()];
    let short = message.size() - 1;
    assert_eq!(
        message.encode(msg_id, object_id, &mut buffer[..short]),
        None
    );
    assert!(
        buffer.iter().all(|&byte| byte == 0xee),
        "a refused message left bytes behind"
    );
    let len = message
        .encode(msg_id, object_id, &mut buffer)
        .unwrap()
        .len();
    assert_eq!(len, buffer.len());
    buffer
}

proptest! {
    #[test]
    fn open(
        msg_id: u32,
        object_id in 1..=u32::MAX,
        fd in 0..=i32::MAX,
        volume_key in prop::collection::vec(1..=255u8, 1..=255),
        cookie_key in prop::collection::vec(any::<u8>(), 1..=255),
    ) {
        let (volume_key, cookie_key) = (&volume_key[..], &cookie_key[..]);
        let bytes = encode(&Message::Open { fd, volume_key, cookie_key }, msg_id, object_id);
        let payload = Payload::Open { fd, flags: 0, volume_key, cookie_key };
        let packet = Packet { msg_id, object_id, payload };
        prop_assert_eq!(Packet::try_from(&bytes[..]).ok(), Some(packet));
        prop_assert_eq!(packet.encode(), bytes);
    }

    #[test]
    fn close_and_read(msg_id: u32, object_id in 1..=u32::MAX, block in 0..1u64 << 50, blocks in 1..1u64 << 20) {
        let (off, len) = (block * 4096, blocks * 4096);
        for (message, payload) in [
            (Message::Close, Payload::Close),
            (Message::Read { off, len }, Payload::Read { off, len }),
        ] {
            let bytes = encode(&message, msg_id, object_id);
            let packet = Packet { msg_id, object_id, payload };
            prop_assert_eq!(Packet::try_from(&bytes[..]).ok(), Some(packet));
            prop_assert_eq!(packet.encode(), bytes);
        }
    }
}
