//! TCP segments, with every option that matters and room for nonsense.

use super::{Ip, be16, be32, protocol, sum};
use core::net::SocketAddr;

/// Header bits.
#[expect(missing_docs, reason = "they are TCP's own names")]
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
    pub const URG: u8 = 32;
    pub const ECE: u8 = 64;
    pub const CWR: u8 = 128;
}

/// A TCP segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tcp {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Window as in the header, unscaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options.
    pub options: Options,
    /// Data.
    pub payload: Vec<u8>,
}

/// TCP options.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale.
    pub scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamp value and echo.
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks, left and right edge.
    pub sack: Vec<(u32, u32)>,
    /// Written as they are, before padding. Never produced by the parser.
    pub raw: Vec<u8>,
}

impl Tcp {
    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Sequence numbers that the segment takes up.
    #[must_use]
    pub fn sequence_len(&self) -> u32 {
        let data = u32::try_from(self.payload.len()).expect("a segment's length");
        data + u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN))
    }

    /// Sets flags.
    #[must_use]
    pub const fn with(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }

    /// Clears flags.
    #[must_use]
    pub const fn without(mut self, flags: u8) -> Self {
        self.flags &= !flags;
        self
    }

    /// Moves the sequence number by `by`.
    #[must_use]
    pub const fn seq_plus(mut self, by: u32) -> Self {
        self.seq = self.seq.wrapping_add(by);
        self
    }

    /// Moves the sequence number back by `by`.
    #[must_use]
    pub const fn seq_minus(mut self, by: u32) -> Self {
        self.seq = self.seq.wrapping_sub(by);
        self
    }

    /// Sets the acknowledgement number, and the flag.
    #[must_use]
    pub const fn acking(mut self, ack: u32) -> Self {
        self.ack = ack;
        self.with(flag::ACK)
    }

    /// Sets the window field.
    #[must_use]
    pub const fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// Sets the data.
    #[must_use]
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.payload = data.into();
        self
    }

    /// Sets the SACK blocks.
    #[must_use]
    pub fn sack(mut self, blocks: &[(u32, u32)]) -> Self {
        self.options.sack = blocks.to_vec();
        self
    }

    /// Sets the timestamps.
    #[must_use]
    pub const fn timestamps(mut self, value: u32, echo: u32) -> Self {
        self.options.timestamps = Some((value, echo));
        self
    }

    /// The packet from `from` to `to`, checksum complete; the ports are taken from there.
    #[must_use]
    pub fn packet(&self, from: SocketAddr, to: SocketAddr) -> Ip {
        let segment = Self { src: from.port(), dst: to.port(), ..self.clone() };
        let mut ip = Ip::new(from.ip(), to.ip(), protocol::TCP, segment.emit());
        let check = !sum(ip.pseudo_sum(ip.payload.len()), &ip.payload);
        ip.payload[16..18].copy_from_slice(&check.to_be_bytes());
        ip.dont_fragment = true;
        ip
    }

    /// The bytes, checksum zero.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let options = self.options.emit();
        let words = u8::try_from(5 + options.len() / 4).expect("short header");
        let mut out = Vec::with_capacity(20 + options.len() + self.payload.len());
        out.extend_from_slice(&self.src.to_be_bytes());
        out.extend_from_slice(&self.dst.to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.ack.to_be_bytes());
        out.extend_from_slice(&[words << 4, self.flags]);
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.urgent.to_be_bytes());
        out.extend_from_slice(&options);
        out.extend_from_slice(&self.payload);
        out
    }

    /// Takes the segment inside `ip` apart.
    ///
    /// # Panics
    /// When anything about it is wrong.
    #[must_use]
    pub fn parse(ip: &Ip) -> Self {
        let bytes = &ip.payload[..];
        assert!(bytes.len() >= 20, "TCP header cut short");
        let header_len = usize::from(bytes[12] >> 4) * 4;
        assert!((20..=bytes.len()).contains(&header_len), "TCP data offset {header_len}");
        assert_eq!(bytes[12] & 15, 0, "reserved TCP bits");
        assert_eq!(sum(ip.pseudo_sum(bytes.len()), bytes), 0xffff, "TCP checksum");
        Self {
            src: be16(bytes, 0),
            dst: be16(bytes, 2),
            seq: be32(bytes, 4),
            ack: be32(bytes, 8),
            flags: bytes[13],
            window: be16(bytes, 14),
            urgent: be16(bytes, 18),
            options: Options::parse(&bytes[20..header_len]),
            payload: bytes[header_len..].to_vec(),
        }
    }
}

impl Options {
    fn emit(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(mss) = self.mss {
            out.extend_from_slice(&[2, 4]);
            out.extend_from_slice(&mss.to_be_bytes());
        }
        if self.sack_permitted {
            out.extend_from_slice(&[4, 2]);
        }
        if let Some((value, echo)) = self.timestamps {
            out.extend_from_slice(&[8, 10]);
            out.extend_from_slice(&value.to_be_bytes());
            out.extend_from_slice(&echo.to_be_bytes());
        }
        if let Some(scale) = self.scale {
            out.extend_from_slice(&[3, 3, scale]);
        }
        if !self.sack.is_empty() {
            out.extend_from_slice(&[5, u8::try_from(2 + 8 * self.sack.len()).expect("few blocks")]);
            for (left, right) in &self.sack {
                out.extend_from_slice(&left.to_be_bytes());
                out.extend_from_slice(&right.to_be_bytes());
            }
        }
        out.extend_from_slice(&self.raw);
        while out.len() % 4 != 0 {
            out.push(1);
        }
        assert!(out.len() <= 40, "{} bytes of TCP options", out.len());
        out
    }

    fn parse(mut bytes: &[u8]) -> Self {
        let mut found = Self::default();
        while let [kind, rest @ ..] = bytes {
            match kind {
                0 => break,
                1 => bytes = rest,
                kind => {
                    let len = usize::from(*rest.first().expect("option without length"));
                    assert!((2..=bytes.len()).contains(&len), "option {kind} of length {len}");
                    found.take(*kind, &bytes[2..len]);
                    bytes = &bytes[len..];
                }
            }
        }
        found
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body.len()) {
            (2, 2) => self.mss = Some(be16(body, 0)),
            (3, 1) => self.scale = Some(body[0]),
            (4, 0) => self.sack_permitted = true,
            (5, len) if len % 8 == 0 && len > 0 => {
                self.sack = body.chunks(8).map(|block| (be32(block, 0), be32(block, 4))).collect();
            }
            (8, 8) => self.timestamps = Some((be32(body, 0), be32(body, 4))),
            (kind, len) => panic!("TCP option {kind} with {len} bytes"),
        }
    }
}
