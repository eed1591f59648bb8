//! For tests: a configuration (what `slirp4netns --enable-ipv6` has, but for the keys), a link, and a host without
//! sockets.

use crate::addr::MacAddr;
use crate::config::{Config, Keys};
use crate::device::{Capabilities, Device, Full, Offload};
use crate::flow::FlowId;
use crate::frame::Envelope;
use crate::ip::plan::Plan;
use crate::ip::plan::slirp::{Ipv4Config, Ipv6Config, Slirp};
use crate::upstream::{DatagramError, Empty, Errno, Meta, Peek, Received, Sent, Source, Upstream};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

pub(crate) const OURS: MacAddr = MacAddr([0x52, 0x55, 10, 0, 2, 2]);
pub(crate) const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const KEYS: Keys = Keys { flow_hash: [1; 16], isn: [2; 16], others: [3; 16] };

pub(crate) fn config() -> Config {
    Config { plan: plan(|_| {}), ..Config::new(OURS, KEYS, Capabilities::default()) }
}

/// The same plan with a difference.
pub(crate) fn plan(change: impl FnOnce(&mut Slirp)) -> Plan {
    let mut slirp = Slirp {
        v4: Some(Ipv4Config::slirp("10.0.2.0/24".parse().unwrap())),
        v6: Some(Ipv6Config::slirp("fd00::/64".parse().unwrap())),
        host_loopback: true,
        internal: false,
    };
    change(&mut slirp);
    Plan::slirp(OURS, &slirp)
}

/// A packet to the guest, from a server's port to a high one.
pub(crate) fn envelope(v6: bool) -> Envelope {
    let (src, dst) = if v6 { ("[fd00::2]:53", "[fd00::64]:999") } else { ("10.0.2.2:53", "10.0.2.100:999") };
    Envelope {
        to_mac: GUEST,
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        hops: 64,
        traffic_class: 0,
        ident: None,
    }
}

/// A link that keeps what is sent.
#[derive(Debug, Default)]
pub(crate) struct Wire(pub(crate) Vec<Vec<u8>>);

impl Device for Wire {
    fn transmit(&mut self, _: Offload, frame: &[u8]) -> Result<(), Full> {
        self.0.push(frame.to_vec());
        Ok(())
    }
}

/// A host that opens no socket.
#[derive(Debug)]
pub(crate) struct Deaf;

impl Upstream for Deaf {
    fn tcp_connect(&mut self, _: FlowId, _: SocketAddr, _: Source, _: u8) -> Result<(), Errno> {
        Err(Errno::NetUnreachable)
    }
    fn tcp_connect_dns(&mut self, _: FlowId) -> Result<(), Errno> {
        Err(Errno::NetUnreachable)
    }
    fn tcp_send(&mut self, _: FlowId, _: &[&[u8]]) -> Sent {
        Sent::Failed(Errno::BadSocket)
    }
    fn tcp_peek(&mut self, _: FlowId, _: usize, _: &mut [u8]) -> Peek {
        Peek::Failed(Errno::BadSocket)
    }
    fn tcp_send_urgent(&mut self, _: FlowId, _: u8) -> Sent {
        Sent::Taken(1)
    }

    fn tcp_urgent(&mut self, _: FlowId) -> Option<usize> {
        None
    }

    fn tcp_consume(&mut self, _: FlowId, _: usize) {}
    fn tcp_class(&mut self, _: FlowId, _: u8) {}

    fn tcp_shutdown(&mut self, _: FlowId) {}
    fn tcp_keepalive(&mut self, _: FlowId, _: Duration, _: Duration) {}
    fn tcp_reset(&mut self, _: FlowId) {}
    fn udp_open(&mut self, _: FlowId, _: IpAddr, _: Source) -> Result<(), Errno> {
        Err(Errno::NetUnreachable)
    }
    fn udp_send(&mut self, _: FlowId, _: SocketAddr, _: &[u8], _: usize, _: Meta) -> Result<(), Errno> {
        Err(Errno::BadSocket)
    }
    fn udp_receive(&mut self, _: FlowId, _: &mut [u8]) -> Result<Received, Empty> {
        Err(Empty)
    }
    fn take_error(&mut self, _: FlowId) -> Result<DatagramError, Empty> {
        Err(Empty)
    }
    fn ping_open(&mut self, _: FlowId, _: IpAddr, _: Source) -> Result<(), Errno> {
        Err(Errno::Prohibited)
    }
    fn ping_send(&mut self, _: FlowId, _: IpAddr, _: u16, _: &[u8], _: Meta) -> Result<(), Errno> {
        Err(Errno::BadSocket)
    }
    fn ping_receive(&mut self, _: FlowId, _: &mut [u8]) -> Result<(u16, Received), Empty> {
        Err(Empty)
    }
    fn close(&mut self, _: FlowId) {}
}
