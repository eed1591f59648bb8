//! The format of a DHCP message (RFC 2131 §2, RFC 2132): reading what a client sends, writing what a server answers.

use crate::addr::MacAddr;
use crate::bytes;
use crate::drop_reason::DropReason;
use crate::surely::Surely;
use core::net::Ipv4Addr;

/// Where the options begin, behind the magic cookie.
const OPTIONS: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// RFC 1542 §2.1: the least size of a BOOTP message; some clients insist on it.
const LEAST: usize = 300;
/// RFC 2131 §2: what every client takes, as a whole IP packet.
const DEFAULT_PACKET: usize = 576;
/// The largest that is sent, whatever the client takes; all that we have to say fits.
const LARGEST_PACKET: usize = 1500;

/// Option numbers, and message types of servers.
pub(super) mod option {
    pub(in super::super) const NETMASK: u8 = 1;
    pub(in super::super) const ROUTER: u8 = 3;
    pub(in super::super) const DNS: u8 = 6;
    pub(in super::super) const HOST_NAME: u8 = 12;
    pub(in super::super) const MTU: u8 = 26;
    pub(in super::super) const BROADCAST: u8 = 28;
    pub(in super::super) const REQUESTED: u8 = 50;
    pub(in super::super) const LEASE: u8 = 51;
    pub(in super::super) const OVERLOAD: u8 = 52;
    pub(in super::super) const MESSAGE_TYPE: u8 = 53;
    pub(in super::super) const SERVER: u8 = 54;
    pub(in super::super) const PARAMETERS: u8 = 55;
    pub(in super::super) const MESSAGE: u8 = 56;
    pub(in super::super) const MAX_SIZE: u8 = 57;
    pub(in super::super) const T1: u8 = 58;
    pub(in super::super) const T2: u8 = 59;
    pub(in super::super) const CLIENT: u8 = 61;
    pub(in super::super) const RAPID_COMMIT: u8 = 80;
    pub(in super::super) const FULL_NAME: u8 = 81;
    pub(in super::super) const RELAY: u8 = 82;
    pub(in super::super) const SEARCH: u8 = 119;
    pub(in super::super) const ROUTES: u8 = 121;

    pub(in super::super) const OFFER: u8 = 2;
    pub(in super::super) const ACK: u8 = 5;
    pub(in super::super) const NAK: u8 = 6;
}

/// What a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Which servers are there?
    Discover,
    /// I want this address, still or from now on.
    Request,
    /// Somebody has this address already.
    Decline,
    /// I need this address no longer.
    Release,
    /// I have an address; what else is there to know?
    Inform,
    /// What is my address? So BOOTP asks (RFC 951), which has no message types.
    Bootp,
}

/// A valid message from a client.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its message type.
    pub kind: Kind,
    /// Transaction.
    pub xid: [u8; 4],
    /// The client hears broadcasts only.
    pub broadcast: bool,
    /// The address it has.
    pub ciaddr: Ipv4Addr,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its identifier (option 61).
    pub client: Option<&'a [u8]>,
    /// The address it wants (option 50).
    pub requested: Option<Ipv4Addr>,
    /// The server it speaks to (option 54).
    pub server: Option<Ipv4Addr>,
    /// It would take an acknowledgement at once (option 80).
    pub rapid_commit: bool,
    /// The largest packet that it takes (option 57).
    pub max_packet: usize,
    /// The options that it asks for, in the order that it wants them in (option 55).
    pub parameters: &'a [u8],
    /// What somebody on the way noted of it, to get it back (option 82).
    pub relay: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Reads the payload of a datagram to port 67.
    ///
    /// # Errors
    /// [`DropReason::Malformed`]; [`DropReason::Unsolicited`] when it is not from a client that we serve.
    pub fn parse(payload: &'a [u8]) -> Result<Self, DropReason> {
        let fixed: [u8; 44] = bytes::array(payload, 0).ok_or(DropReason::Malformed)?;
        let [op, htype, hlen, hops, x0, x1, x2, x3, _, _, flags, ..] = fixed;
        if bytes::array(payload, OPTIONS - 4) != Some(COOKIE) || (htype, hlen) != (1, 6) {
            return Err(DropReason::Malformed);
        }
        let address = |at| bytes::ipv4(&fixed, at).unwrap_or(Ipv4Addr::UNSPECIFIED);
        // A server's message, or one that came through a relay agent.
        if op != 1 || hops != 0 || !address(24).is_unspecified() {
            return Err(DropReason::Unsolicited);
        }
        let mac = MacAddr(bytes::array(&fixed, 28).ok_or(DropReason::Malformed)?);
        if !mac.is_unicast() {
            return Err(DropReason::Malformed);
        }
        let mut request = Self {
            kind: Kind::Discover,
            xid: [x0, x1, x2, x3],
            broadcast: flags & 0x80 != 0,
            ciaddr: address(12),
            mac,
            client: None,
            requested: None,
            server: None,
            rapid_commit: false,
            max_packet: DEFAULT_PACKET,
            parameters: &[],
            relay: None,
        };
        let mut kind = None;
        let mut overload = 0;
        let fields = payload.get(OPTIONS..).surely();
        request.options(fields, &mut kind, &mut overload)?;
        // RFC 2131 §4.1: first `file`, then `sname`.
        if overload & 1 != 0 {
            request.options(payload.get(108..236).surely(), &mut kind, &mut 0)?;
        }
        if overload & 2 != 0 {
            request.options(payload.get(44..108).surely(), &mut kind, &mut 0)?;
        }
        request.kind = match kind {
            Some(1) => Kind::Discover,
            Some(3) => Kind::Request,
            Some(4) => Kind::Decline,
            Some(7) => Kind::Release,
            Some(8) => Kind::Inform,
            None => Kind::Bootp,
            _ => return Err(DropReason::Unsolicited),
        };
        Ok(request)
    }

    fn options(
        &mut self,
        mut rest: &'a [u8],
        kind: &mut Option<u8>,
        overload: &mut u8,
    ) -> Result<(), DropReason> {
        loop {
            let (code, data) = match *rest {
                [] | [255, ..] => return Ok(()),
                [0, ..] => {
                    rest = rest.get(1..).surely();
                    continue;
                }
                [_] => return Err(DropReason::Malformed),
                [code, len, ref behind @ ..] => {
                    let cut = behind.split_at_checked(usize::from(len)).ok_or(DropReason::Malformed)?;
                    rest = cut.1;
                    (code, cut.0)
                }
            };
            let exact = |len: usize| if data.len() == len { Ok(()) } else { Err(DropReason::Malformed) };
            match code {
                option::MESSAGE_TYPE => {
                    exact(1)?;
                    *kind = data.first().copied();
                }
                option::REQUESTED => {
                    exact(4)?;
                    self.requested = bytes::ipv4(data, 0).filter(|addr| !addr.is_unspecified());
                }
                option::SERVER => {
                    exact(4)?;
                    self.server = bytes::ipv4(data, 0);
                }
                // RFC 2132 §9.14: at least two bytes. Shorter ones are taken for none.
                option::CLIENT => self.client = Some(data).filter(|data| data.len() >= 2),
                option::OVERLOAD => *overload = data.first().copied().unwrap_or(0),
                option::MAX_SIZE => {
                    exact(2)?;
                    let size = usize::from(bytes::be16(data, 0).unwrap_or(0));
                    self.max_packet = size.clamp(DEFAULT_PACKET, LARGEST_PACKET);
                }
                option::RAPID_COMMIT => self.rapid_commit = true,
                option::PARAMETERS => self.parameters = data,
                option::RELAY => self.relay = Some(data),
                _ => {}
            }
        }
    }
}

/// A message from the server, being written.
#[derive(Debug)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    limit: usize,
}

impl Reply {
    /// The answer to `request`, without options yet (RFC 2131 §4.3.1, table 3).
    pub(super) fn to(request: &Request<'_>) -> Self {
        let mut bytes = vec![0; OPTIONS];
        let [x0, x1, x2, x3] = request.xid;
        bytes::put(&mut bytes, 0, [2, 1, 6, 0, x0, x1, x2, x3]);
        bytes::put(&mut bytes, 10, [u8::from(request.broadcast) << 7]);
        if !matches!(request.kind, Kind::Discover | Kind::Bootp) {
            bytes::put(&mut bytes, 12, request.ciaddr.octets());
        }
        bytes::put(&mut bytes, 28, request.mac.0);
        bytes::put(&mut bytes, OPTIONS - 4, COOKIE);
        // IP and UDP headers count, too, and the end mark has to fit.
        Self { bytes, limit: request.max_packet - 28 - 1 }
    }

    /// The address that the client gets.
    pub(super) fn your_address(&mut self, addr: Ipv4Addr) {
        bytes::put(&mut self.bytes, 16, addr.octets());
    }

    /// Appends an option, unless the client could not take a message of that size.
    pub(super) fn option(&mut self, code: u8, data: &[u8]) {
        let Ok(len) = u8::try_from(data.len()) else { return };
        if self.bytes.len() + 2 + data.len() <= self.limit {
            self.bytes.extend_from_slice(&[code, len]);
            self.bytes.extend_from_slice(data);
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(255);
        if self.bytes.len() < LEAST {
            self.bytes.resize(LEAST, 0);
        }
        self.bytes
    }
}
