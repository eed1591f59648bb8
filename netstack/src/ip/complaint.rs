//! A complaint of the guest's about the size of something is heard: the engine's part of [`super::path_mtu`].

use crate::addr::any_endpoint;
use crate::bytes;
use crate::clock::Instant;
use crate::drop_reason::DropReason;
use crate::engine::{Engine, mss};
use crate::headers::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
use crate::ip::Packet;
use crate::ip::path_mtu::{Limits, TooBig};
use crate::transport::echo;
use crate::transport::table::{Key, Kind};
use crate::transport::tcp::Step;
use crate::transport::tcp::seq::SeqNum;
use crate::upstream::Upstream;
use core::net::{IpAddr, SocketAddr};

impl Engine {
    /// What packets to a guest address may measure.
    pub(crate) fn limits(&self, guest: IpAddr) -> Limits {
        self.paths.limits(guest, self.config.mtu.bytes())
    }

    /// An ICMP message of the guest that is none of a flow's own: heard if it speaks of sizes.
    pub(crate) fn on_icmp_error<U: Upstream>(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        up: &mut U,
    ) -> Result<(), DropReason> {
        let ipv6 = packet.src.is_ipv6();
        if !TooBig::is_one(packet.payload, ipv6) {
            return Err(DropReason::Unsolicited);
        }
        let told = TooBig::parse(packet.payload, ipv6).ok_or(DropReason::Malformed)?;
        let mtu = told.believed(self.config.mtu.bytes()).ok_or(DropReason::Unsolicited)?;
        // RFC 1122 §3.2.2: it goes to the sender of what it quotes.
        if told.src != packet.dst || !self.may_have_sent(now, &told, mtu, up) {
            return Err(DropReason::Unsolicited);
        }
        self.paths.learn(now, told.dst, mtu);
        Ok(())
    }

    /// Whether the quoted packet can be one of ours. A TCP flow whose packet it is shortens its segments.
    fn may_have_sent<U: Upstream>(&mut self, now: Instant, told: &TooBig<'_>, mtu: u16, up: &mut U) -> bool {
        let word = |at| bytes::be16(told.rest, at);
        let flow = |kind, guest_port, peer| Key { kind, guest: SocketAddr::new(told.dst, guest_port), peer };
        match (told.protocol, word(0), word(2)) {
            (PROTO_TCP, Some(from), Some(to)) => {
                let key = flow(Kind::Tcp, to, SocketAddr::new(told.src, from));
                let Some((id, seq)) = self.flows.find(&key).zip(bytes::array(told.rest, 4)) else {
                    return false;
                };
                let (seq, mss, mut in_flight) = (SeqNum(u32::from_be_bytes(seq)), mss(told.dst, mtu), false);
                self.tcp_step(now, id, up, |tcp, _| {
                    in_flight = tcp.path_narrows(seq, mss);
                    Step::Continue
                });
                in_flight
            }
            (PROTO_UDP, Some(from), Some(to)) => {
                let pair = flow(Kind::UdpPair, to, SocketAddr::new(told.src, from));
                let any = flow(Kind::UdpAny, to, any_endpoint(told.dst));
                self.config.plan.is_ours(told.src)
                    || self.flows.find(&pair).is_some()
                    || self.flows.find(&any).is_some()
            }
            (PROTO_ICMP | PROTO_ICMPV6, Some(_), Some(_)) => {
                let (_, reply) = echo::types(told.dst);
                let ident = word(4).unwrap_or_default();
                bytes::byte(told.rest, 0) == Some(reply)
                    && (self.config.plan.is_ours(told.src)
                        || self.flows.find(&flow(Kind::Echo, ident, SocketAddr::new(told.src, 0))).is_some())
            }
            _ => false,
        }
    }
}
