//! Frames towards the guest: headers written in front of a payload that is already in place.
//!
//! [`TxBuffer`] has room for one super-frame. The payload (peeked from a socket, or copied) lies at a fixed place
//! behind [`HEADROOM`]; [`Tx`] writes Ethernet, IP and transport headers right-aligned before it, so nothing is ever
//! moved. When the device does not segment, the frame is cut here: the headers of segment *n* overwrite the tail of
//! segment *n* - 1, which has left already.

use crate::addr::MacAddr;
use crate::checksum;
use crate::config::Config;
use crate::counters::Counters;
use crate::device::vnet::{Checksum, Gso, GsoKind, Offload};
use crate::device::{Capabilities, Device, Full};
use crate::drop_reason::DropReason;
use crate::headers::{
    ETHERNET_LEN, ICMP_CHECKSUM, IPV4_LEN, IPV6_LEN, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP,
    TCP_CHECKSUM, UDP_CHECKSUM, ip_header_len,
};
use crate::ip::fragment::fragment;
use crate::schedule::FRAME_COST;
use crate::surely::Surely;
use core::net::{IpAddr, SocketAddr};

/// Room for Ethernet (14), IPv6 (40) and the longest TCP header (60), rounded up.
pub(crate) const HEADROOM: usize = 128;
/// The longest payload: an IP packet holds 65,535 bytes.
pub(crate) const MAX_PAYLOAD: usize = 65_535;

/// Room for one frame, reused for all.
#[derive(Debug)]
pub(crate) struct TxBuffer {
    bytes: Box<[u8]>,
}

impl Default for TxBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; HEADROOM + MAX_PAYLOAD].into_boxed_slice() }
    }
}

impl TxBuffer {
    /// The first `len` bytes of the payload's place.
    pub(crate) fn payload_mut(&mut self, len: usize) -> &mut [u8] {
        let end = HEADROOM + len.min(MAX_PAYLOAD);
        self.bytes.get_mut(HEADROOM..end).surely()
    }
}

/// What a frame's Ethernet and IP headers say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope {
    pub(crate) to_mac: MacAddr,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) hops: u8,
    pub(crate) traffic_class: u8,
    /// The identification of a datagram that may be fragmented (IPv4: its low half); `None` for an atomic one (RFC 6864
    /// §4.1). In a train the device counts on from it.
    pub(crate) ident: Option<u32>,
}

/// A transport header: its bytes with the checksum field zero, and where that field is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transport<'a> {
    protocol: u8,
    pub(crate) header: &'a [u8],
    checksum_at: usize,
}

impl<'a> Transport<'a> {
    pub(crate) const fn tcp(header: &'a [u8]) -> Self {
        Self { protocol: PROTO_TCP, header, checksum_at: TCP_CHECKSUM }
    }

    pub(crate) const fn udp(header: &'a [u8]) -> Self {
        Self { protocol: PROTO_UDP, header, checksum_at: UDP_CHECKSUM }
    }

    /// ICMP of IPv4, or ICMPv6.
    pub(crate) const fn icmp(ipv6: bool, header: &'a [u8]) -> Self {
        let protocol = if ipv6 { PROTO_ICMPV6 } else { PROTO_ICMP };
        Self { protocol, header, checksum_at: ICMP_CHECKSUM }
    }
}

/// How the payload is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Not at all.
    Whole,
    /// Into segments of this many bytes, by the device.
    Train(GsoKind, u16),
}

/// What was sent, to be added to the counters afterwards.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    frames: u64,
    bytes: u64,
    /// Frames that found the link full, and will not be sent again.
    lost: u64,
    too_big: u64,
    fragments: u64,
}

impl Tally {
    /// One frame of `len` bytes.
    pub(crate) const fn one(len: usize) -> Self {
        Self::of(1, len as u64)
    }

    /// So many frames of so many bytes together.
    pub(crate) const fn of(frames: u64, bytes: u64) -> Self {
        Self { frames, bytes, lost: 0, too_big: 0, fragments: 0 }
    }

    /// `frames` are lost, because the link is full.
    pub(crate) const fn lose(&mut self, frames: u64) {
        self.lost += frames;
    }

    /// What sending them has cost, in the schedule's bytes.
    #[expect(clippy::cast_possible_truncation, reason = "frames of one turn")]
    pub(crate) const fn cost(&self) -> usize {
        self.bytes as usize + self.frames as usize * FRAME_COST
    }
}

impl Counters {
    /// Adds what a [`Tx`] sent.
    pub(crate) fn add(&mut self, tally: Tally) {
        self.frames_out += tally.frames;
        self.bytes_out += tally.bytes;
        self.drop_many(DropReason::Device, tally.lost);
        self.drop_many(DropReason::TooBig, tally.too_big);
        self.fragments_out += tally.fragments;
    }
}

/// Sends frames to the guest.
#[derive(Debug)]
pub(crate) struct Tx<'a, D> {
    pub(crate) dev: &'a mut D,
    pub(crate) buffer: &'a mut TxBuffer,
    pub(crate) tally: Tally,
    pub(crate) mac: MacAddr,
    pub(crate) caps: Capabilities,
    /// The device has refused a frame: nothing more is offered to it in this drain.
    pub(crate) full: bool,
}

impl<'a, D: Device> Tx<'a, D> {
    pub(crate) fn new(dev: &'a mut D, buffer: &'a mut TxBuffer, config: &Config) -> Self {
        Self { dev, buffer, tally: Tally::default(), mac: config.mac, caps: config.device, full: false }
    }

    /// Sends the `len` payload bytes that begin `skip` bytes into the buffer's payload.
    ///
    /// # Errors
    /// [`Full`] when the link has no room: the frame was not sent. One that can never be sent is counted as such.
    pub(crate) fn send(
        &mut self,
        env: &Envelope,
        transport: &Transport<'_>,
        skip: usize,
        len: usize,
        cut: Cut,
    ) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        let payload_at = HEADROOM + skip;
        let ip_len = ip_header_len(env.dst.ip());
        let l4_len = transport.header.len() + len;
        let headers_len = ETHERNET_LEN + ip_len + transport.header.len();
        let Some(start) = payload_at.checked_sub(headers_len) else { return Ok(()) };
        let Some(frame) = self.buffer.bytes.get_mut(start..payload_at + len) else {
            self.tally.too_big += 1;
            return Ok(());
        };
        if !write_headers(frame, self.mac, env, transport.protocol, l4_len) {
            self.tally.too_big += 1;
            return Ok(());
        }
        let Some(l4) = frame.get_mut(ETHERNET_LEN + ip_len..) else { return Ok(()) };
        if let Some(place) = l4.get_mut(..transport.header.len()) {
            place.copy_from_slice(transport.header);
        }
        let sum = pseudo_header(env.src.ip(), env.dst.ip(), transport.protocol, l4_len);
        let checksum = if self.caps.checksum {
            put_u16(l4, transport.checksum_at, sum);
            Checksum::Partial { start: to_u16(ETHERNET_LEN + ip_len), offset: to_u16(transport.checksum_at) }
        } else {
            put_u16(l4, transport.checksum_at, 0);
            let sum = finish(checksum::combine(&[sum, checksum::sum(l4)]), transport.protocol);
            put_u16(l4, transport.checksum_at, sum);
            Checksum::Complete
        };
        let gso = match cut {
            Cut::Train(kind, size) if len > usize::from(size) => {
                Some(Gso { kind, size, header_len: to_u16(headers_len) })
            }
            _ => None,
        };
        if self.dev.transmit(Offload { checksum, gso }, frame).is_err() {
            self.full = true;
            return Err(Full);
        }
        self.tally.frames += 1;
        self.tally.bytes += frame.len() as u64;
        Ok(())
    }
}

impl<D: Device> Tx<'_, D> {
    /// Sends the `len` payload bytes that begin `skip` bytes into the buffer's payload in fragments of at most `mtu`
    /// bytes.
    pub(crate) fn send_cut(
        &mut self,
        env: &Envelope,
        transport: &Transport<'_>,
        (skip, len): (usize, usize),
        (mtu, ident): (usize, u32),
    ) {
        let payload = self.buffer.bytes.get(HEADROOM + skip..HEADROOM + skip + len).surely();
        let frame = assemble(self.mac, &Envelope { ident: Some(ident), ..*env }, transport, payload);
        let packet = frame.get(ETHERNET_LEN..).surely();
        let cut = fragment(packet, mtu, ident, |part| {
            let frame = wrap(self.mac, env.to_mac, part);
            if self.full || self.dev.transmit(Offload::NONE, &frame).is_err() {
                self.full = true;
                self.tally.lost += 1;
                return;
            }
            self.tally.frames += 1;
            self.tally.fragments += 1;
            self.tally.bytes += frame.len() as u64;
        });
        if cut.is_err() {
            self.tally.too_big += 1;
        }
    }
}

/// A whole frame of its own, for the seldom ones: checksum complete, payload copied.
pub(crate) fn assemble(mac: MacAddr, env: &Envelope, transport: &Transport<'_>, payload: &[u8]) -> Vec<u8> {
    let ip_len = ip_header_len(env.dst.ip());
    let l4_len = transport.header.len() + payload.len();
    let mut frame = vec![0; ETHERNET_LEN + ip_len];
    frame.extend_from_slice(transport.header);
    frame.extend_from_slice(payload);
    write_headers(&mut frame, mac, env, transport.protocol, l4_len);
    if let Some(l4) = frame.get_mut(ETHERNET_LEN + ip_len..) {
        put_u16(l4, transport.checksum_at, 0);
        let pseudo = match transport.protocol {
            PROTO_ICMP => 0,
            protocol => pseudo_header(env.src.ip(), env.dst.ip(), protocol, l4_len),
        };
        let sum = finish(checksum::combine(&[pseudo, checksum::sum(l4)]), transport.protocol);
        put_u16(l4, transport.checksum_at, sum);
    }
    frame
}

/// An Ethernet frame around a complete IP packet.
pub(crate) fn wrap(mac: MacAddr, to_mac: MacAddr, packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = match packet.first().map(|b| b >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    };
    let mut frame = Vec::with_capacity(ETHERNET_LEN + packet.len());
    frame.extend_from_slice(&to_mac.0);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&ethertype);
    frame.extend_from_slice(packet);
    frame
}

/// The one's complement of a sum as it goes into a header; a UDP checksum of zero means "none" and is sent as all ones
/// (RFC 768).
fn finish(sum: u16, protocol: u8) -> u16 {
    if protocol == PROTO_UDP { checksum::finish_udp(sum) } else { checksum::finish(sum) }
}

fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, l4_len: usize) -> u16 {
    checksum::pseudo_header(src, dst, protocol, u32::try_from(l4_len).surely_or(u32::MAX))
}

/// Writes the Ethernet and IP headers to the front of `frame`. False when the packet is too long for its length field.
fn write_headers(frame: &mut [u8], mac: MacAddr, env: &Envelope, protocol: u8, l4_len: usize) -> bool {
    let [t0, t1, t2, t3, t4, t5] = env.to_mac.0;
    let [m0, m1, m2, m3, m4, m5] = mac.0;
    match (env.src.ip(), env.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let Ok(total) = u16::try_from(l4_len + IPV4_LEN) else { return false };
            let ([l0, l1], s, d) = (total.to_be_bytes(), src.octets(), dst.octets());
            let (class, hops) = (env.traffic_class, env.hops);
            // RFC 6864 §4.1: an atomic datagram has "don't fragment" set, and its identification means nothing.
            let ([i0, i1], flags) = match env.ident {
                Some(ident) => (low_half(ident), 0),
                None => ([0, 0], 0x40),
            };
            let mut ip = [
                0x45, class, l0, l1, i0, i1, flags, 0, hops, protocol, 0, 0, s[0], s[1], s[2], s[3], d[0],
                d[1], d[2], d[3],
            ];
            let [c0, c1] = (!checksum::sum(&ip)).to_be_bytes();
            ip[10] = c0;
            ip[11] = c1;
            let ethernet = [t0, t1, t2, t3, t4, t5, m0, m1, m2, m3, m4, m5, 0x08, 0x00];
            copy_front(frame, &ethernet, &ip)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let Ok(total) = u16::try_from(l4_len) else { return false };
            let ([l0, l1], class) = (total.to_be_bytes(), env.traffic_class);
            let mut ip = [0; IPV6_LEN];
            let fixed = [0x60 | class >> 4, class << 4, 0, 0, l0, l1, protocol, env.hops];
            if let Some((start, rest)) = ip.split_first_chunk_mut::<8>() {
                *start = fixed;
                if let Some((s, d)) = rest.split_at_mut_checked(16) {
                    s.copy_from_slice(&src.octets());
                    d.copy_from_slice(&dst.octets());
                }
            }
            let ethernet = [t0, t1, t2, t3, t4, t5, m0, m1, m2, m3, m4, m5, 0x86, 0xdd];
            copy_front(frame, &ethernet, &ip)
        }
        _ => false,
    }
}

fn copy_front(frame: &mut [u8], ethernet: &[u8; ETHERNET_LEN], ip: &[u8]) -> bool {
    let Some((eth, rest)) = frame.split_at_mut_checked(ETHERNET_LEN) else { return false };
    eth.copy_from_slice(ethernet);
    match rest.get_mut(..ip.len()) {
        Some(place) => {
            place.copy_from_slice(ip);
            true
        }
        None => false,
    }
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

const fn low_half(ident: u32) -> [u8; 2] {
    let [.., i0, i1] = ident.to_be_bytes();
    [i0, i1]
}

/// Header lengths, which are all far below the limit.
fn to_u16(n: usize) -> u16 {
    u16::try_from(n).surely_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Full;
    use crate::testing::envelope;

    #[derive(Default)]
    struct Sink(Vec<(Offload, Vec<u8>)>);

    impl Device for Sink {
        fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
            self.0.push((offload, frame.to_vec()));
            Ok(())
        }
    }

    fn send(caps: Capabilities, v6: bool, protocol: u8, payload: &[u8], cut: Cut) -> (Offload, Vec<u8>) {
        let (mut dev, mut buffer) = (Sink::default(), TxBuffer::default());
        buffer.payload_mut(payload.len()).copy_from_slice(payload);
        let env = Envelope { traffic_class: 0xb8, ..envelope(v6) };
        let len = to_u16(payload.len() + 8).to_be_bytes();
        let header: &[u8] =
            if protocol == PROTO_UDP { &[0, 53, 3, 231, len[0], len[1], 0, 0] } else { &[0; 20] };
        let transport = if protocol == PROTO_UDP { Transport::udp(header) } else { Transport::tcp(header) };
        let (mac, tally) = (MacAddr([2; 6]), Tally::default());
        let mut tx = Tx { dev: &mut dev, buffer: &mut buffer, tally, mac, caps, full: false };
        tx.send(&env, &transport, 0, payload.len(), cut).unwrap();
        dev.0.pop().unwrap()
    }

    #[test]
    fn a_second_parser_agrees_with_the_headers() {
        for v6 in [false, true] {
            let (offload, frame) = send(Capabilities::default(), v6, PROTO_UDP, b"hello", Cut::Whole);
            assert_eq!(offload, Offload::NONE);
            let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
            assert_eq!((udp.source_port(), udp.destination_port(), udp.payload()), (53, 999, &b"hello"[..]));
            let expected = match packet.net.unwrap() {
                etherparse::NetSlice::Ipv4(ip) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    assert_eq!(header.dscp.value() << 2, 0xb8);
                    udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap()
                }
                etherparse::NetSlice::Ipv6(ip) => {
                    let header = ip.header().to_header();
                    udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(udp.checksum(), expected);
        }
    }

    #[test]
    fn a_capable_device_gets_the_work_left_over() {
        let caps = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
        let (offload, frame) = send(caps, false, PROTO_TCP, &[7; 3000], Cut::Train(GsoKind::Tcp4, 1400));
        assert_eq!(offload.checksum, Checksum::Partial { start: 34, offset: 16 });
        assert_eq!(offload.gso, Some(Gso { kind: GsoKind::Tcp4, size: 1400, header_len: 54 }));
        assert_eq!(frame.len(), 3054);
        let (offload, _) = send(caps, false, PROTO_TCP, &[7; 1400], Cut::Train(GsoKind::Tcp4, 1400));
        assert_eq!(offload.gso, None, "a train of one is no train");
    }
}
