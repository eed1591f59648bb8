//! Which of the guest's datagrams are for the servers within, and what these send of their own accord.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::config::Config;
use crate::drop_reason::DropReason;
use crate::engine::Engine;
use crate::frame::{Envelope, Transport};
use crate::ip::Packet;
use crate::ip::plan::Plan;
use crate::transport::udp::{self, Datagram};
use crate::within::ra::Advertiser;
use crate::within::{dhcp4, dhcp6};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::BTreeMap;

/// The servers and their state.
#[derive(Debug)]
pub(crate) struct Within {
    advertiser: Advertiser,
    dhcp4: Option<dhcp4::Server>,
    dhcp6: Option<dhcp6::Server>,
}

impl Within {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            advertiser: Advertiser::new(config),
            dhcp4: dhcp4::Server::new(config),
            dhcp6: dhcp6::Server::new(config),
        }
    }

    /// `config` has a new plan instead of `old`, as of `now`. Whose addresses are as they were goes on: leases stay.
    pub(crate) fn readdress(&mut self, now: Instant, config: &Config, old: &Plan) {
        let new = &config.plan;
        if (&new.v4, new.dhcp, &new.dhcp_manner) != (&old.v4, old.dhcp, &old.dhcp_manner) {
            self.dhcp4 = dhcp4::Server::new(config);
        }
        let of = |plan: &Plan| (plan.advertise, plan.dhcp6, plan.dhcp6_pool);
        if new.v6 != old.v6 || of(new) != of(old) {
            self.dhcp6 = dhcp6::Server::new(config);
            self.advertiser.readdress(now, config, old);
        }
    }

    /// `config` has other search domains than `before`, as of `now`. Leases stay.
    pub(crate) fn retell(&mut self, now: Instant, config: &Config, before: &[String]) {
        if let Some(dhcp4) = &mut self.dhcp4 {
            dhcp4.retell(config);
        }
        if let Some(dhcp6) = &mut self.dhcp6 {
            dhcp6.retell(config);
        }
        self.advertiser.retell(now, config, before);
    }

    pub(crate) const fn next_timeout(&self) -> Option<Instant> {
        self.advertiser.next_timeout()
    }
}

impl Engine {
    /// Who has which address of the link, as far as we assign them: we, whoever an address is kept for, and who has a
    /// lease.
    #[must_use]
    pub fn leases(&self, now: Instant) -> Vec<(IpAddr, MacAddr)> {
        let plan = &self.config.plan;
        let gateways: [Option<IpAddr>; 2] = [
            plan.v4.as_ref().and_then(|v4| v4.gateway).map(IpAddr::V4),
            plan.v6.as_ref().and_then(|v6| v6.gateway).map(IpAddr::V6),
        ];
        let mut all: BTreeMap<_, _> =
            gateways.into_iter().flatten().map(|gateway| (gateway, self.config.mac)).collect();
        if let Some(server) = &self.within.dhcp4 {
            all.extend(server.leases(now).chain(server.reserved()).map(|(addr, mac)| (addr.into(), mac)));
        }
        if let Some(server) = &self.within.dhcp6 {
            all.extend(server.leases(now).map(|(addr, mac)| (addr.into(), mac)));
        }
        all.into_iter().collect()
    }

    /// Keeps an address of the link for a station from now on, and no other: see [`dhcp4::Server::keep`].
    ///
    /// # Errors
    /// See [`dhcp4::KeepError`].
    pub fn keep_address(
        &mut self,
        now: Instant,
        address: Ipv4Addr,
        station: MacAddr,
    ) -> Result<(), dhcp4::KeepError> {
        let server = self.within.dhcp4.as_mut().ok_or(dhcp4::KeepError::NoHost)?;
        server.keep(now, address, station)
    }

    /// Advertisements that are due.
    pub(crate) fn within_timeout(&mut self, now: Instant) {
        if let Some(frame) = self.within.advertiser.on_timeout(now, &self.config) {
            self.post(frame);
        }
    }

    /// A guest looks for a router.
    pub(crate) fn advertise(&mut self, now: Instant, from: Ipv6Addr, mac: MacAddr) {
        if let Some(frame) = self.within.advertiser.on_solicit(now, &self.config, from, mac) {
            self.post(frame);
        }
    }

    /// Whether a datagram was for a server within, which then has answered it.
    pub(crate) fn serve_within(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        datagram: &Datagram<'_>,
    ) -> Result<bool, DropReason> {
        match (packet.dst, datagram.dst_port) {
            (IpAddr::V4(dst), dhcp4::SERVER_PORT) => self.serve_dhcp4(now, dst, datagram),
            (IpAddr::V6(dst), dhcp6::SERVER_PORT) => {
                let client = SocketAddr::new(packet.src, dhcp6::CLIENT_PORT);
                self.serve_dhcp6(now, mac, (client, dst), datagram.payload)
            }
            _ => Ok(false),
        }
    }

    fn serve_dhcp4(
        &mut self,
        now: Instant,
        dst: Ipv4Addr,
        datagram: &Datagram<'_>,
    ) -> Result<bool, DropReason> {
        let Some(server) = &mut self.within.dhcp4 else { return Ok(false) };
        if !server.listens_at(dst) {
            return Ok(false);
        }
        let own = server.address();
        match server.answer(now, datagram.payload) {
            dhcp4::Answer::Reply(reply) => {
                let src = SocketAddr::new(own.into(), dhcp4::SERVER_PORT);
                let asked_from =
                    Some(datagram.src_port).filter(|&port| port > 0 && self.config.plan.dhcp_manner.to_all);
                let dst = SocketAddr::new(reply.to_ip.into(), asked_from.unwrap_or(dhcp4::CLIENT_PORT));
                self.post_datagram(reply.to_mac, src, dst, &reply.payload);
                if let Some(addr) = reply.grants {
                    self.guests.claims(&self.config.plan, addr.into());
                }
                Ok(true)
            }
            dhcp4::Answer::Ignore(reason) => Err(reason),
        }
    }

    fn serve_dhcp6(
        &mut self,
        now: Instant,
        mac: MacAddr,
        (client, dst): (SocketAddr, Ipv6Addr),
        payload: &[u8],
    ) -> Result<bool, DropReason> {
        let Some(server) = &mut self.within.dhcp6 else { return Ok(false) };
        let to_group = dst == dhcp6::ALL_SERVERS;
        let link_local = self.config.plan.link_local().unwrap_or_else(|| self.config.mac.link_local());
        if !to_group && dst != link_local && !self.config.plan.is_ours(dst.into()) {
            return Ok(false);
        }
        if client.ip().is_unspecified() {
            return Err(DropReason::Martian);
        }
        let reply = server.answer(now, mac, payload, to_group)?;
        let src = SocketAddr::new(link_local.into(), dhcp6::SERVER_PORT);
        self.post_datagram(mac, src, client, &reply);
        Ok(true)
    }

    /// Sends a datagram of a server within.
    fn post_datagram(&mut self, to_mac: MacAddr, src: SocketAddr, dst: SocketAddr, payload: &[u8]) {
        let env = Envelope { to_mac, src, dst, hops: 64, traffic_class: 0, ident: None };
        let header = udp::header(&env, payload.len());
        let transport = Transport::udp(&header);
        for frame in self.frames(&env, &transport, payload) {
            self.post(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Offload;
    use crate::frame::assemble;
    use crate::testing::{self, Deaf, GUEST, OURS, Wire};

    /// What the engine answers to a datagram of the guest.
    fn exchange(engine: &mut Engine, src: &str, dst: &str, payload: &[u8]) -> Vec<Vec<u8>> {
        let env = Envelope {
            to_mac: MacAddr::BROADCAST,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            hops: 64,
            traffic_class: 0,
            ident: None,
        };
        let header = udp::header(&env, payload.len());
        let transport = Transport::udp(&header);
        let frame = assemble(GUEST, &env, &transport, payload);
        engine.on_frame(Instant::ZERO, Offload::NONE, &frame, &mut Deaf);
        let mut wire = Wire::default();
        while engine.drain(Instant::ZERO, &mut Deaf, &mut wire) {}
        wire.0
    }

    fn discover() -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[28..34].copy_from_slice(&GUEST.0);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(&[53, 1, 1, 255]);
        bytes
    }

    #[test]
    fn dhcp_is_served_to_a_guest_without_address() {
        let mut engine = Engine::new(testing::config());
        for dst in ["255.255.255.255:67", "10.0.2.255:67", "10.0.2.2:67"] {
            let frames = exchange(&mut engine, "0.0.0.0:68", dst, &discover());
            let [frame] = &frames[..] else { panic!("{dst}: {} frames", frames.len()) };
            assert_eq!(frame[..12], [GUEST.0, OURS.0].concat());
            let packet = Packet::parse(&frame[14..]).unwrap();
            assert_eq!(
                (packet.src.to_string(), packet.dst.to_string()),
                ("10.0.2.2".into(), "10.0.2.15".into())
            );
            let datagram =
                Datagram::parse(packet.payload, packet.src, packet.dst, Offload::NONE.checksum).unwrap();
            assert_eq!((datagram.src_port, datagram.dst_port), (67, 68));
        }
        assert!(exchange(&mut engine, "0.0.0.0:68", "10.0.2.9:67", &discover()).is_empty(), "not ours");
    }

    #[test]
    fn dhcpv6_is_served_from_our_link_local_address() {
        let mut engine = Engine::new(testing::config());
        let request = [11, 1, 2, 3];
        let frames = exchange(&mut engine, "[fe80::1]:546", "[ff02::1:2]:547", &request);
        let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
        let packet = Packet::parse(&frame[14..]).unwrap();
        assert_eq!(packet.src, IpAddr::V6(OURS.link_local()));
        assert_eq!(packet.dst.to_string(), "fe80::1");
        assert_eq!(packet.payload[..4], [2, 35, 2, 34], "ports 547 and 546");
        assert!(exchange(&mut engine, "[::]:546", "[ff02::1:2]:547", &request).is_empty());
    }

    #[test]
    fn switched_off_servers_are_silent() {
        let mut config = testing::config();
        (config.plan.dhcp, config.plan.dhcp6) = (None, false);
        let mut engine = Engine::new(config);
        assert!(exchange(&mut engine, "0.0.0.0:68", "255.255.255.255:67", &discover()).is_empty());
        assert!(exchange(&mut engine, "[fe80::1]:546", "[ff02::1:2]:547", &[11, 1, 2, 3]).is_empty());
    }

    /// An IPv6 packet of the guest as it is, in an Ethernet frame; what the engine answers.
    fn send_v6(engine: &mut Engine, next: u8, rest: &[u8]) -> Vec<Vec<u8>> {
        let mut frame = [&OURS.0[..], &GUEST.0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0]].concat();
        frame.extend_from_slice(&[u8::try_from(rest.len()).unwrap(), next, 64]);
        frame.extend_from_slice(&"fd00::64".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend_from_slice(rest);
        engine.on_frame(Instant::ZERO, Offload::NONE, &frame, &mut Deaf);
        let mut wire = Wire::default();
        while engine.drain(Instant::ZERO, &mut Deaf, &mut wire) {}
        wire.0
    }

    #[test]
    fn extension_headers_that_must_not_be_ignored_are_refused() {
        let mut engine = Engine::new(testing::config());
        let type_and_code = |frames: Vec<Vec<u8>>| frames.first().map(|frame| (frame[54], frame[55]));
        let unknown_option = send_v6(&mut engine, 60, &[17, 0, 0x9e, 4, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0]);
        assert_eq!(type_and_code(unknown_option), Some((4, 2)));
        let source_route = send_v6(&mut engine, 43, &[17, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0]);
        assert_eq!(type_and_code(source_route), Some((4, 0)));
        assert_eq!(type_and_code(send_v6(&mut engine, 132, &[0; 12])), Some((4, 1)), "SCTP");
        assert_eq!(type_and_code(send_v6(&mut engine, 59, &[0; 12])), None, "no next header");
    }

    #[test]
    fn a_datagram_that_stays_incomplete_is_complained_about_and_counted() {
        let mut engine = Engine::new(testing::config());
        let first = send_v6(&mut engine, 44, &[17, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 2, 0, 99, 0, 0]);
        assert!(first.is_empty());
        let later = Instant::ZERO + crate::ip::fragment::TIMEOUT;
        engine.on_timeout(later, &mut Deaf);
        let mut wire = Wire::default();
        while engine.drain(later, &mut Deaf, &mut wire) {}
        assert!(wire.0.iter().any(|frame| frame[20] == 58 && frame[54..56] == [3, 1]), "{:x?}", wire.0);
        assert_eq!(engine.counters().dropped(DropReason::Fragment), 1);
    }
}
