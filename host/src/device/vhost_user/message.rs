//! What a front end says: requests as the vhost-user protocol writes them.
//!
//! ```text
//!   0        4        8        12
//!   | request| flags  | size   | payload, `size` bytes; descriptors come beside it
//! ```
//! All numbers are in the byte order of the machine, which both sides share. Parsing is pure: what a request asks for
//! is carried out by [`super::VhostUser`].
//!
//! Source: QEMU's *Vhost-user Protocol*; virtio 1.2 §5.1.3 (feature bits of a network card).

use bitflags::bitflags;

/// Bytes in front of a payload.
pub const HEADER_LEN: usize = 12;
/// No payload that we have a use for is longer.
pub const LONGEST: usize = 1024;
/// Regions of memory that we keep.
pub const MOST_REGIONS: usize = 32;
/// Regions that one table may have.
const MOST_IN_TABLE: usize = 8;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// In requests that bring a descriptor: none came.
const NO_FD: u64 = 1 << 8;

bitflags! {
    /// What device and driver agree on.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Features: u64 {
        /// The driver may leave checksums to us.
        const CSUM = 1 << 0;
        /// We may leave them to the driver.
        const GUEST_CSUM = 1 << 1;
        /// We may hand it TCP trains over IPv4.
        const GUEST_TSO4 = 1 << 7;
        /// The same over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// It may hand us TCP trains over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The same over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// Of which the first segment may carry CWR.
        const HOST_ECN = 1 << 13;
        /// A frame to it may take several buffers.
        const MRG_RXBUF = 1 << 15;
        /// There are protocol features ([`Protocol`]).
        const PROTOCOL_FEATURES = 1 << 30;
        /// Not the virtio of before its standard.
        const VERSION_1 = 1 << 32;
        /// We may hand it UDP trains over IPv4.
        const GUEST_USO4 = 1 << 54;
        /// The same over IPv6.
        const GUEST_USO6 = 1 << 55;
        /// It may hand us UDP trains.
        const HOST_USO = 1 << 56;
    }
}

bitflags! {
    /// What front end and back end agree on.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Protocol: u64 {
        /// Requests without a reply may ask for one.
        const REPLY_ACK = 1 << 3;
        /// Memory comes and goes region by region.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
    }
}

/// A part of the machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSpec {
    /// Its address for the guest.
    pub guest: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Its address for the front end, in whose terms rings are told.
    pub user: u64,
    /// Where it begins in its file.
    pub offset: u64,
}

/// One of the two rings of a network card without more queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Frames to the guest.
    ToGuest,
    /// Frames from it.
    FromGuest,
}

/// A request that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// What the device can do.
    GetFeatures,
    /// What driver and front end want of it.
    SetFeatures(Features),
    /// Who connects is the owner anyway.
    SetOwner,
    /// Both rings stop.
    ResetOwner,
    /// All regions anew.
    SetMemory(Vec<RegionSpec>),
    /// One more.
    AddRegion(RegionSpec),
    /// One less.
    RemoveRegion(RegionSpec),
    /// How many descriptors a ring has.
    SetSize(Direction, u32),
    /// Where its parts are, in the front end's addresses.
    SetAddresses(Direction, Addresses),
    /// Where in the ring to go on.
    SetBase(Direction, u32),
    /// Stop, and say where that was.
    GetBase(Direction),
    /// The descriptor by which the guest calls us.
    SetKick(Direction),
    /// The one by which we call the guest, if it wants to be called.
    SetCall(Direction, bool),
    /// The one by which errors would be told.
    SetError,
    /// Whether frames pass.
    Enable(Direction, bool),
    /// What the back end can do beside.
    GetProtocol,
    /// What is wanted of that.
    SetProtocol(Protocol),
    /// How many pairs of rings there are.
    GetQueues,
    /// How many regions we keep.
    GetSlots,
    /// The state of the device, for a migration: there is none to be had.
    SetStateFd,
    /// Whether such a transfer went well.
    CheckState,
    /// Anything else.
    Unknown(u32),
}

/// Where the parts of a ring are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    /// Descriptors.
    pub descriptors: u64,
    /// What the driver makes available.
    pub available: u64,
    /// What the device has used.
    pub used: u64,
}

/// What stands in front of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which request.
    pub request: u32,
    /// Whether an answer is wanted to what has none of its own.
    pub need_reply: bool,
    /// Bytes of payload, at most [`LONGEST`].
    pub size: usize,
}

/// Why a request cannot be understood: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another protocol, or an answer.
    #[error("no request of vhost-user: flags {0:#x}")]
    Flags(u32),
    /// A payload that none has.
    #[error("a payload of {0} bytes")]
    Size(u32),
    /// A payload of another length than the request has.
    #[error("request {0} with a payload of {1} bytes")]
    Payload(u32, usize),
    /// A number that makes no sense.
    #[error("request {0} says {1}")]
    Value(u32, u64),
    /// More or fewer descriptors than belong to it.
    #[error("request {0} with {1} descriptors")]
    Descriptors(u32, usize),
}

impl Header {
    /// Reads it.
    ///
    /// # Errors
    /// [`Malformed`]: nothing can follow that makes sense.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, Malformed> {
        let [request, flags, size] = words(bytes);
        if flags & VERSION_MASK != VERSION || flags & REPLY != 0 {
            return Err(Malformed::Flags(flags));
        }
        let len = usize::try_from(size).ok().filter(|len| *len <= LONGEST).ok_or(Malformed::Size(size))?;
        Ok(Self { request, need_reply: flags & NEED_REPLY != 0, size: len })
    }

    /// The header of a request, for the other side.
    #[must_use]
    pub fn emit(self) -> [u8; HEADER_LEN] {
        let flags = if self.need_reply { VERSION | NEED_REPLY } else { VERSION };
        head(self.request, flags, self.size)
    }
}

/// The answer to `request`: its header and `payload`.
#[must_use]
pub fn reply(request: u32, payload: &[u8]) -> Vec<u8> {
    [&head(request, VERSION | REPLY, payload.len()), payload].concat()
}

fn head(request: u32, flags: u32, size: usize) -> [u8; HEADER_LEN] {
    let [r, f, s] = [request, flags, u32::try_from(size).unwrap_or(u32::MAX)].map(u32::to_ne_bytes);
    let mut bytes = [0; HEADER_LEN];
    for (into, from) in bytes.iter_mut().zip([r, f, s].iter().flatten()) {
        *into = *from;
    }
    bytes
}

/// Numbers of requests.
pub mod number {
    #![allow(missing_docs, reason = "the protocol's own names")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_DEVICE_STATE_FD: u32 = 42;
    pub const CHECK_DEVICE_STATE: u32 = 43;
}

impl Request {
    /// What `request` asks for by `payload`, with so many descriptors beside it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(request: u32, payload: &[u8], fds: usize) -> Result<Self, Malformed> {
        let reader = Reader { request, payload };
        let (parsed, wanted) = match request {
            number::GET_FEATURES => (Self::GetFeatures, 0),
            number::SET_FEATURES => (Self::SetFeatures(Features::from_bits_retain(reader.number()?)), 0),
            number::SET_OWNER => (Self::SetOwner, 0),
            number::RESET_OWNER => (Self::ResetOwner, 0),
            number::SET_MEM_TABLE => {
                let regions = reader.table()?;
                let count = regions.len();
                (Self::SetMemory(regions), count)
            }
            number::ADD_MEM_REG => (Self::AddRegion(reader.region()?), 1),
            // Some send the descriptor along: there is no use for it.
            number::REM_MEM_REG => (Self::RemoveRegion(reader.region()?), fds.min(1)),
            number::SET_VRING_NUM => reader.state().map(|(ring, size)| (Self::SetSize(ring, size), 0))?,
            number::SET_VRING_ADDR => (reader.addresses()?, 0),
            number::SET_VRING_BASE => reader.state().map(|(ring, at)| (Self::SetBase(ring, at), 0))?,
            number::GET_VRING_BASE => reader.state().map(|(ring, _)| (Self::GetBase(ring), 0))?,
            number::SET_VRING_KICK => match reader.ring_and_fd()? {
                (ring, true) => (Self::SetKick(ring), 1),
                // Looking again and again whether there is work is not what we do.
                (_, false) => return Err(Malformed::Value(request, NO_FD)),
            },
            number::SET_VRING_CALL => {
                reader.ring_and_fd().map(|(ring, fd)| (Self::SetCall(ring, fd), usize::from(fd)))?
            }
            number::SET_VRING_ERR => reader.ring_and_fd().map(|(_, fd)| (Self::SetError, usize::from(fd)))?,
            number::GET_PROTOCOL_FEATURES => (Self::GetProtocol, 0),
            number::SET_PROTOCOL_FEATURES => {
                (Self::SetProtocol(Protocol::from_bits_retain(reader.number()?)), 0)
            }
            number::GET_QUEUE_NUM => (Self::GetQueues, 0),
            number::SET_VRING_ENABLE => {
                let (ring, on) = reader.state()?;
                (Self::Enable(ring, reader.boolean(on)?), 0)
            }
            number::GET_MAX_MEM_SLOTS => (Self::GetSlots, 0),
            number::SET_DEVICE_STATE_FD => (Self::SetStateFd, fds),
            number::CHECK_DEVICE_STATE => (Self::CheckState, 0),
            unknown => (Self::Unknown(unknown), fds),
        };
        if wanted == fds { Ok(parsed) } else { Err(Malformed::Descriptors(request, fds)) }
    }
}

/// A payload, and which request's it is.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    request: u32,
    payload: &'a [u8],
}

impl Reader<'_> {
    /// A payload of exactly `N` bytes.
    fn exactly<const N: usize>(&self) -> Result<&[u8; N], Malformed> {
        self.payload.try_into().map_err(|_| Malformed::Payload(self.request, self.payload.len()))
    }

    fn number(&self) -> Result<u64, Malformed> {
        self.exactly().copied().map(u64::from_ne_bytes)
    }

    fn direction(&self, index: u32) -> Result<Direction, Malformed> {
        match index {
            0 => Ok(Direction::ToGuest),
            1 => Ok(Direction::FromGuest),
            _ => Err(Malformed::Value(self.request, index.into())),
        }
    }

    /// A ring and a number.
    fn state(&self) -> Result<(Direction, u32), Malformed> {
        let [ring, number] = words(self.exactly::<8>()?);
        Ok((self.direction(ring)?, number))
    }

    fn boolean(&self, number: u32) -> Result<bool, Malformed> {
        match number {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Value(self.request, number.into())),
        }
    }

    /// A ring, and whether a descriptor comes along.
    fn ring_and_fd(&self) -> Result<(Direction, bool), Malformed> {
        let number = self.number()?;
        let ring = match number & !NO_FD {
            0 => Direction::ToGuest,
            1 => Direction::FromGuest,
            _ => return Err(Malformed::Value(self.request, number)),
        };
        Ok((ring, number & NO_FD == 0))
    }

    fn addresses(&self) -> Result<Request, Malformed> {
        let (head, rest) = self.exactly::<40>()?.split_at(8);
        let [ring, flags] = words(head);
        // The one flag is for the log of a migration, which there is none of.
        if flags != 0 {
            return Err(Malformed::Value(self.request, flags.into()));
        }
        let [descriptors, used, available, _log] = quads(rest);
        let addresses = Addresses { descriptors, available, used };
        Ok(Request::SetAddresses(self.direction(ring)?, addresses))
    }

    /// One region, behind padding.
    fn region(&self) -> Result<RegionSpec, Malformed> {
        let (_, region) = self.exactly::<40>()?.split_at(8);
        Ok(region_of(region))
    }

    /// A count, padding, and so many regions.
    fn table(&self) -> Result<Vec<RegionSpec>, Malformed> {
        let wrong = Malformed::Payload(self.request, self.payload.len());
        let (head, regions) = self.payload.split_at_checked(8).ok_or(wrong)?;
        let [count, _] = words(head);
        let most = usize::try_from(count).ok().filter(|count| (1..=MOST_IN_TABLE).contains(count));
        let count = most.ok_or_else(|| Malformed::Value(self.request, count.into()))?;
        // Some send the whole table, whatever is in use of it.
        let regions = regions.get(..count * REGION_LEN).ok_or(wrong)?;
        Ok(regions.chunks_exact(REGION_LEN).map(region_of).collect())
    }
}

const REGION_LEN: usize = 32;

fn region_of(bytes: &[u8]) -> RegionSpec {
    let [guest, len, user, offset] = quads(bytes);
    RegionSpec { guest, len, user, offset }
}

/// The first numbers of four bytes; what is missing is 0.
fn words<const M: usize>(bytes: &[u8]) -> [u32; M] {
    let mut words = [0; M];
    for (into, from) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *into = u32::from_ne_bytes(*from);
    }
    words
}

/// The first four numbers of eight bytes; what is missing is 0.
fn quads(bytes: &[u8]) -> [u64; 4] {
    let mut quads = [0; 4];
    for (into, from) in quads.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *into = u64::from_ne_bytes(*from);
    }
    quads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    fn pair(ring: u32, number: u32) -> Vec<u8> {
        [ring.to_ne_bytes(), number.to_ne_bytes()].concat()
    }

    #[test]
    fn each_request_is_what_it_says() {
        use Direction::{FromGuest, ToGuest};
        let spec = RegionSpec { guest: 1, len: 2, user: 3, offset: 4 };
        let at = Addresses { descriptors: 5, used: 6, available: 7 };
        let table = [pair(2, 0), numbers(&[1, 2, 3, 4, 1, 2, 3, 4, 9, 9])].concat();
        let features = Features::CSUM | Features::VERSION_1;
        for (request, payload, fds, expected) in [
            (1, Vec::new(), 0, Request::GetFeatures),
            (2, numbers(&[features.bits()]), 0, Request::SetFeatures(features)),
            (3, Vec::new(), 0, Request::SetOwner),
            (4, Vec::new(), 0, Request::ResetOwner),
            (5, table, 2, Request::SetMemory(vec![spec, spec])),
            (8, pair(1, 256), 0, Request::SetSize(FromGuest, 256)),
            (9, [pair(0, 0), numbers(&[5, 6, 7, 8])].concat(), 0, Request::SetAddresses(ToGuest, at)),
            (10, pair(1, 7), 0, Request::SetBase(FromGuest, 7)),
            (11, pair(0, 0), 0, Request::GetBase(ToGuest)),
            (12, numbers(&[1]), 1, Request::SetKick(FromGuest)),
            (13, numbers(&[0]), 1, Request::SetCall(ToGuest, true)),
            (13, numbers(&[0x101]), 0, Request::SetCall(FromGuest, false)),
            (14, numbers(&[0x100]), 0, Request::SetError),
            (15, Vec::new(), 0, Request::GetProtocol),
            (16, numbers(&[8]), 0, Request::SetProtocol(Protocol::REPLY_ACK)),
            (17, Vec::new(), 0, Request::GetQueues),
            (18, pair(1, 1), 0, Request::Enable(FromGuest, true)),
            (36, Vec::new(), 0, Request::GetSlots),
            (37, numbers(&[0, 1, 2, 3, 4]), 1, Request::AddRegion(spec)),
            (38, numbers(&[0, 1, 2, 3, 4]), 0, Request::RemoveRegion(spec)),
            (38, numbers(&[0, 1, 2, 3, 4]), 1, Request::RemoveRegion(spec)),
            (42, pair(0, 0), 1, Request::SetStateFd),
            (43, Vec::new(), 0, Request::CheckState),
            (99, vec![1, 2, 3], 2, Request::Unknown(99)),
        ] {
            assert_eq!(Request::parse(request, &payload, fds), Ok(expected), "{request}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (request, payload, fds, expected) in [
            (2, vec![0; 7], 0, Malformed::Payload(2, 7)),
            (5, pair(0, 0), 0, Malformed::Value(5, 0)),
            (5, pair(u32::MAX, 0), 0, Malformed::Value(5, u64::from(u32::MAX))),
            (5, pair(9, 0), 8, Malformed::Value(5, 9)),
            (5, [pair(2, 0), vec![0; 63]].concat(), 2, Malformed::Payload(5, 71)),
            (5, [pair(2, 0), vec![0; 64]].concat(), 1, Malformed::Descriptors(5, 1)),
            (5, vec![0; 3], 0, Malformed::Payload(5, 3)),
            (8, pair(2, 256), 0, Malformed::Value(8, 2)),
            (9, [pair(0, 1), numbers(&[0; 4])].concat(), 0, Malformed::Value(9, 1)),
            (12, numbers(&[0x100]), 0, Malformed::Value(12, 0x100)),
            (12, numbers(&[0]), 0, Malformed::Descriptors(12, 0)),
            (13, numbers(&[u64::MAX]), 1, Malformed::Value(13, u64::MAX)),
            (18, pair(0, 2), 0, Malformed::Value(18, 2)),
            (3, Vec::new(), 1, Malformed::Descriptors(3, 1)),
            (37, numbers(&[0; 5]), 0, Malformed::Descriptors(37, 0)),
        ] {
            assert_eq!(Request::parse(request, &payload, fds), Err(expected), "{request}");
        }
    }

    #[test]
    fn headers_of_another_protocol_and_endless_payloads_are_refused() {
        let header = Header { request: 7, need_reply: true, size: 9 };
        assert_eq!(Header::parse(&header.emit()), Ok(header));
        let parse = |flags, size| Header::parse(&head(1, flags, size));
        assert_eq!(parse(0, 0), Err(Malformed::Flags(0)));
        assert_eq!(parse(2, 0), Err(Malformed::Flags(2)));
        assert_eq!(parse(5, 0), Err(Malformed::Flags(5)), "an answer");
        assert_eq!(parse(1, LONGEST + 1), Err(Malformed::Size(1025)));
        assert_eq!(parse(1, usize::MAX), Err(Malformed::Size(u32::MAX)));
        assert_eq!(reply(1, &[5])[..], [&head(1, 5, 1)[..], &[5]].concat());
    }
}
