//! sendmsg, recvmsg and their plural forms: datagrams with addresses and control messages, many in one system call.
//!
//! `nix` has them too, but allocates control buffers and parses every message into an enum; here the buffers are laid
//! out once and only the messages in use are prepared again.

use super::message::{Control, Name};
use nix::errno::Errno;
use slipway_netstack::surely::Surely;
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The most messages in one call.
pub const BATCH: usize = 64;

/// Buffers for a recvmmsg call.
pub struct Batch {
    names: Box<[Name]>,
    controls: Box<[Control]>,
    /// What these point to is set anew before each call.
    headers: Box<[libc::mmsghdr]>,
    parts: Box<[[libc::iovec; 2]]>,
}

/// One received message of a [`Batch`].
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Bytes received.
    pub len: usize,
    /// The sender.
    pub name: &'a Name,
    /// Control messages.
    pub control: &'a [u8],
    /// Whether the datagram was longer than its room.
    pub truncated: bool,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batch")
    }
}

impl Default for Batch {
    fn default() -> Self {
        // SAFETY: all-zero headers and parts are valid: null pointers with lengths of zero.
        let (header, part): (libc::mmsghdr, [libc::iovec; 2]) = unsafe { std::mem::zeroed() };
        Self {
            names: vec![Name::EMPTY; BATCH].into_boxed_slice(),
            controls: vec![Control::EMPTY; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
            parts: vec![part; BATCH].into_boxed_slice(),
        }
    }
}

impl Batch {
    /// Receives up to `count` (at most [`BATCH`]) datagrams in one call, as many as there are now, and returns how
    /// many.
    ///
    /// The first `head_len` bytes of datagram number i go to place i of `head`, an array of such places. The rest of
    /// it goes to place i of `tail`, an array of places of `tail_len` bytes, behind its first `head_len` bytes, which
    /// stay free. With an empty `tail` the rest is cut off.
    ///
    /// # Errors
    /// EAGAIN when there is none; an error reported about an earlier datagram.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        count: usize,
        (head, head_len): (&mut [u8], usize),
        (tail, tail_len): (&mut [u8], usize),
    ) -> Result<usize, Errno> {
        let with_tail = !tail.is_empty();
        let mut tails = tail.chunks_exact_mut(tail_len.max(1));
        let heads = head.chunks_exact_mut(head_len.max(1));
        let places = self.names.iter_mut().zip(&mut self.controls);
        let mut prepared = 0usize;
        for ((((header, parts), (name, control)), head), _) in
            self.headers.iter_mut().zip(&mut self.parts).zip(places).zip(heads).zip(0..count)
        {
            let [first, second] = parts;
            *first = libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: head.len() };
            let mut used = 1;
            if with_tail {
                let Some(free) = tails.next().and_then(|tail| tail.get_mut(head_len..)) else { break };
                *second = libc::iovec { iov_base: free.as_mut_ptr().cast(), iov_len: free.len() };
                used = 2;
            }
            let message = &mut header.msg_hdr;
            message.msg_iov = parts.as_mut_ptr();
            message.msg_iovlen = used;
            message.msg_name = name.room().as_mut_ptr().cast();
            message.msg_namelen = NAME_ROOM;
            message.msg_control = control.room().as_mut_ptr().cast();
            message.msg_controllen = CONTROL_ROOM;
            prepared += 1;
        }
        // SAFETY: the first `prepared` headers point to parts, names, control buffers and places that live until the
        // end of this function, are exclusively borrowed, disjoint, and as long as the headers say.
        let got = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                u32::try_from(prepared).surely(),
                DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let got = Errno::result(got).map(|got| usize::try_from(got).surely())?;
        let places = self.names.iter_mut().zip(&mut self.controls);
        for (header, (name, control)) in self.headers.iter().zip(places).take(got) {
            name.set_len(header.msg_hdr.msg_namelen);
            control.set_len(header.msg_hdr.msg_controllen);
        }
        Ok(got)
    }

    /// Message number `at` of the last call; `None` behind the last place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<Message<'_>> {
        let header = self.headers.get(at)?;
        Some(Message {
            len: usize::try_from(header.msg_len).ok()?,
            name: self.names.get(at)?,
            control: self.controls.get(at)?.as_bytes(),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

/// What came with a single message.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// Bytes received.
    pub len: usize,
    /// The sender; of an error queue, the receiver.
    pub name: Name,
    /// Control messages.
    pub control: Control,
}

/// Receives one message, or, with `from_errors`, one entry of the error queue.
///
/// # Errors
/// EAGAIN when there is none; an error reported about an earlier datagram.
pub fn receive_one(
    fd: BorrowedFd<'_>,
    parts: &mut [IoSliceMut<'_>],
    from_errors: bool,
) -> Result<Arrived, Errno> {
    let mut arrived = Arrived { len: 0, name: Name::EMPTY, control: Control::EMPTY };
    // SAFETY: an all-zero msghdr is valid: no name, no control data, no parts.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts.as_mut_ptr().cast();
    header.msg_iovlen = parts.len();
    header.msg_name = arrived.name.room().as_mut_ptr().cast();
    header.msg_namelen = NAME_ROOM;
    header.msg_control = arrived.control.room().as_mut_ptr().cast();
    header.msg_controllen = CONTROL_ROOM;
    let flags = if from_errors { libc::MSG_ERRQUEUE | DONTWAIT } else { DONTWAIT };
    // SAFETY: the header points to live, exclusively borrowed buffers of the lengths it says; IoSliceMut is guaranteed
    // to have the layout of iovec.
    let got = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    arrived.len = Errno::result(got).map(|got| usize::try_from(got).surely())?;
    arrived.name.set_len(header.msg_namelen);
    arrived.control.set_len(header.msg_controllen);
    Ok(arrived)
}

/// Sends one message of several parts: to `name`, or, if that is empty, to where the socket is connected. A broken
/// connection is an error, never a signal.
///
/// # Errors
/// The kernel's.
pub fn send_one(
    fd: BorrowedFd<'_>,
    name: &Name,
    control: &Control,
    parts: &[IoSlice<'_>],
) -> Result<usize, Errno> {
    let header = outgoing(name, control, parts.as_ptr().cast_mut().cast(), parts.len());
    // SAFETY: the header points to live buffers of the lengths it says, which sendmsg only reads; IoSlice is guaranteed
    // to have the layout of iovec.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, DONTWAIT | libc::MSG_NOSIGNAL) };
    Errno::result(sent).map(|sent| usize::try_from(sent).surely())
}

/// Sends the first [`BATCH`] pieces of `segment` bytes of `payload` (the last may be shorter) as a datagram each.
/// Returns how many datagrams the kernel took.
///
/// # Errors
/// The kernel's, about the first datagram.
pub fn send_many(
    fd: BorrowedFd<'_>,
    name: &Name,
    control: &Control,
    payload: &[u8],
    segment: usize,
) -> Result<usize, Errno> {
    let mut parts = [IoSlice::new(&[]); BATCH];
    // SAFETY: all-zero headers are valid: null pointers with lengths of zero.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    let pieces = payload.chunks(segment.max(1));
    for ((piece, part), header) in pieces.zip(&mut parts).zip(&mut headers) {
        *part = IoSlice::new(piece);
        header.msg_hdr = outgoing(name, control, std::ptr::from_mut(part).cast(), 1);
        count += 1;
    }
    // SAFETY: the first `count` headers point to live buffers of the lengths they say, which sendmmsg only reads (it
    // writes `msg_len` in the headers themselves).
    let sent =
        unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, DONTWAIT | libc::MSG_NOSIGNAL) };
    Errno::result(sent).map(|sent| usize::try_from(sent).surely())
}

/// Sends the first [`BATCH`] of `datagrams`, each to its own name, in one call. Returns how many the kernel took; with
/// the next one something is wrong, or it has no room now.
///
/// # Errors
/// The kernel's, about the first datagram.
pub fn send_each(fd: BorrowedFd<'_>, datagrams: &[(&Name, &[u8])]) -> Result<usize, Errno> {
    send_groups(fd, datagrams, |_| 1)
}

/// Like [`send_each`], but neighbours for one name that make a train, all of one length but for a shorter last one,
/// leave as one message that the kernel splits where it must (UDP_SEGMENT, Linux 4.18). Returns how many datagrams it
/// took.
///
/// # Errors
/// The kernel's, about the first train or lone datagram. EINVAL, EMSGSIZE, EIO and EOPNOTSUPP may be about the train as
/// such: without it the same datagrams may leave.
pub fn send_trains(fd: BorrowedFd<'_>, datagrams: &[(&Name, &[u8])]) -> Result<usize, Errno> {
    send_groups(fd, datagrams, train_len)
}

/// Sends `datagrams` as messages of so many as `group_len` says of those that are left.
fn send_groups(
    fd: BorrowedFd<'_>,
    datagrams: &[(&Name, &[u8])],
    group_len: impl Fn(&[(&Name, &[u8])]) -> usize,
) -> Result<usize, Errno> {
    let datagrams = datagrams.get(..BATCH).unwrap_or(datagrams);
    let mut parts = [IoSlice::new(&[]); BATCH];
    for (part, (_, payload)) in parts.iter_mut().zip(datagrams) {
        *part = IoSlice::new(payload);
    }
    // SAFETY: all-zero headers are valid: null pointers with lengths of zero.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut controls = [Control::EMPTY; BATCH];
    let mut groups = 0;
    let mut left = (datagrams, parts.as_mut_slice());
    for (header, control) in headers.iter_mut().zip(&mut controls) {
        let (datagrams, parts) = left;
        let Some((name, first)) = datagrams.first() else { break };
        let count = group_len(datagrams);
        if count > 1 {
            let size = u16::try_from(first.len()).surely_or(u16::MAX);
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        }
        let (group, behind) = parts.split_at_mut(count);
        header.msg_hdr = outgoing(name, control, group.as_mut_ptr().cast(), group.len());
        left = (datagrams.get(count..).surely(), behind);
        groups += 1;
    }
    // SAFETY: the first `groups` headers point to live buffers of the lengths they say, which sendmmsg only reads (it
    // writes `msg_len` in the headers themselves); IoSlice is guaranteed to have the layout of iovec.
    let sent = unsafe {
        libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), groups, DONTWAIT | libc::MSG_NOSIGNAL)
    };
    let sent = Errno::result(sent).map(|sent| usize::try_from(sent).surely())?;
    Ok(headers.iter().take(sent).map(|header| header.msg_hdr.msg_iovlen).sum())
}

/// How many of these, from the first on, make a train; at least 1.
fn train_len(datagrams: &[(&Name, &[u8])]) -> usize {
    let Some((name, first)) = datagrams.first() else { return 1 };
    let longest = LONGEST_TRAIN.checked_div(first.len()).unwrap_or(1).max(1);
    let mut count = 1;
    for (other, payload) in datagrams.get(1..).surely() {
        let joins = other.as_bytes() == name.as_bytes() && (1..=first.len()).contains(&payload.len());
        if !joins || count >= longest {
            break;
        }
        count += 1;
        if payload.len() < first.len() {
            break;
        }
    }
    count
}

/// A header for sending, which the kernel only reads.
fn outgoing(name: &Name, control: &Control, parts: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: an all-zero msghdr is valid: no name, no control data, no parts.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts;
    header.msg_iovlen = count;
    let (name, control) = (name.as_bytes(), control.as_bytes());
    if !name.is_empty() {
        header.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_namelen = u32::try_from(name.len()).surely();
    }
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
    }
    header
}

#[expect(clippy::cast_possible_truncation, reason = "28")]
const NAME_ROOM: u32 = Name::ROOM as u32;
const CONTROL_ROOM: usize = Control::ROOM;
/// A train fits one IP packet with UDP and IPv6 headers.
const LONGEST_TRAIN: usize = 65_535 - 8 - 40;
const DONTWAIT: i32 = libc::MSG_DONTWAIT;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair() -> (UdpSocket, UdpSocket, Name) {
        let (to, from) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let name = to.local_addr().unwrap().into();
        (to, from, name)
    }

    #[test]
    fn many_leave_and_arrive_in_one_call_each() {
        let (to, from, name) = pair();
        assert_eq!(send_many(from.as_fd(), &name, &Control::EMPTY, b"aabbccd", 2), Ok(4));
        let mut batch = Batch::default();
        let (mut head, mut tail) = ([0; 4], [0; 12]);
        assert_eq!(batch.receive(to.as_fd(), 9, (&mut head, 1), (&mut tail, 3)), Ok(4));
        assert_eq!(&head, b"abcd");
        assert_eq!(&tail, b"\0a\0\0b\0\0c\0\0\0\0");
        for (at, len) in [2, 2, 2, 1].into_iter().enumerate() {
            let message = batch.get(at).unwrap();
            assert_eq!((message.len, message.truncated), (len, false));
            assert_eq!(message.name.decode(), Some(from.local_addr().unwrap()));
        }
        assert!(batch.get(BATCH).is_none());
        assert_eq!(batch.receive(to.as_fd(), 9, (&mut head, 1), (&mut tail, 3)), Err(Errno::EAGAIN));
    }

    #[test]
    fn no_more_arrive_than_asked_and_what_does_not_fit_is_told() {
        let (to, from, name) = pair();
        send_many(from.as_fd(), &name, &Control::EMPTY, b"aabbcc", 2).unwrap();
        let mut batch = Batch::default();
        let mut head = [0; 2];
        assert_eq!(batch.receive(to.as_fd(), 9, (&mut head, 1), (&mut [], 0)), Ok(2), "two places");
        assert!(batch.get(0).unwrap().truncated);
        assert_eq!(batch.receive(to.as_fd(), 1, (&mut head, 1), (&mut [], 0)), Ok(1));
    }

    #[test]
    fn one_leaves_and_arrives_in_parts() {
        let (to, from, name) = pair();
        let parts = [IoSlice::new(b"he"), IoSlice::new(b"llo")];
        assert_eq!(send_one(from.as_fd(), &name, &Control::EMPTY, &parts), Ok(5));
        let (mut first, mut second) = ([0; 3], [0; 9]);
        let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        let arrived = receive_one(to.as_fd(), &mut parts, false).unwrap();
        assert_eq!((arrived.len, arrived.name.decode()), (5, Some(from.local_addr().unwrap())));
        assert_eq!((&first, &second[..2]), (b"hel", &b"lo"[..]));
        let none = receive_one(to.as_fd(), &mut [], true);
        assert_eq!(none.map(|arrived| arrived.len), Err(Errno::EAGAIN), "its error queue is empty");
    }

    #[test]
    fn each_leaves_for_its_own_name() {
        let (one, from, to_one) = pair();
        let (other, _, to_other) = pair();
        let datagrams: [(&Name, &[u8]); 3] = [(&to_one, b"a"), (&to_other, b""), (&to_one, b"ccc")];
        assert_eq!(send_each(from.as_fd(), &datagrams), Ok(3));
        let mut buffer = [0; 9];
        assert_eq!(one.recv(&mut buffer).unwrap(), 1);
        assert_eq!(one.recv(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"ccc");
        assert_eq!(other.recv(&mut buffer).unwrap(), 0);
        let refused: [(&Name, &[u8]); 2] = [(&to_one, b"a"), (&to_one, &[0; 70_000])];
        assert_eq!(send_each(from.as_fd(), &refused), Ok(1));
        assert_eq!(send_each(from.as_fd(), &refused[1..]), Err(Errno::EMSGSIZE));
    }

    #[test]
    fn neighbours_for_one_name_leave_as_trains_and_arrive_one_by_one() {
        let (one, from, to_one) = pair();
        let (other, _, to_other) = pair();
        let datagrams: [(&Name, &[u8]); 9] = [
            (&to_one, b"aaa"),
            (&to_one, b"bbb"),
            (&to_one, b"c"),
            (&to_one, b"dd"),
            (&to_other, b"ee"),
            (&to_other, b"ff"),
            (&to_one, b""),
            (&to_one, b"gggg"),
            (&to_one, b"hhhh"),
        ];
        assert_eq!(train_len(&datagrams), 3);
        assert_eq!(train_len(&datagrams[3..]), 1, "another name");
        assert_eq!(train_len(&datagrams[6..]), 1, "nothing is nobody's neighbour");
        assert_eq!(train_len(&[]), 1);
        assert_eq!(send_trains(from.as_fd(), &datagrams), Ok(9));
        let mut buffer = [0; 9];
        for (name, payload) in datagrams {
            let socket = if name == &to_one { &one } else { &other };
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], payload);
        }
        let long = [0; 1200];
        let many = [(&to_one, &long[..]); BATCH + 3];
        assert_eq!(train_len(&many), 54, "64 KiB");
        assert_eq!(send_trains(from.as_fd(), &many), Ok(BATCH));
        assert_eq!(send_trains(from.as_fd(), &[]), Ok(0));
        let refused: [(&Name, &[u8]); 2] = [(&to_one, b"a"), (&to_one, &[0; 70_000])];
        assert_eq!(send_trains(from.as_fd(), &refused), Ok(1));
        assert_eq!(send_trains(from.as_fd(), &refused[1..]), Err(Errno::EMSGSIZE));
    }

    #[test]
    fn no_more_than_a_batch_leaves() {
        let (_to, from, name) = pair();
        assert_eq!(send_many(from.as_fd(), &name, &Control::EMPTY, &[0; BATCH + 9], 1), Ok(BATCH));
    }
}
