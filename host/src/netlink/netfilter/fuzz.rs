//! The promise of the readers: any bytes are understood or passed over, and what is understood is there.

use super::conntrack::connection;
use super::socket::messages;
use super::{Attributes, attributes};

/// Reads any bytes as a datagram of the kernel's.
pub(crate) fn fuzz(datagram: &[u8]) {
    let mut read = 0;
    for message in messages(datagram) {
        read += 16;
        assert!(read <= datagram.len(), "no message is invented");
        let _ = message.refusal();
        entry(message.attributes());
    }
    entry(datagram);
}

/// Reads any bytes as an entry of the connection tracker.
fn entry(list: &[u8]) {
    // What is read and written again reads as the same.
    let mut again = Attributes::default();
    attributes(list).for_each(|(kind, value)| again.bytes(kind, value));
    assert!(attributes(list).eq(attributes(again.as_bytes())), "attributes are written as they were read");
    for protocol in [6, 17, 132] {
        let Some(found) = connection(list, protocol) else { continue };
        // The part of it that names the entry to the kernel is one that the kernel could have sent.
        let named = connection(found.key.as_bytes(), protocol);
        assert!(named.is_none(), "the answers' half does not name an entry");
        assert!(attributes(found.key.as_bytes()).count() <= attributes(list).count());
    }
}
