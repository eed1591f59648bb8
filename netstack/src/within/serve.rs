//! Which of the guest's datagrams are for the servers within, and what these send of their own accord.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::config::Config;
use crate::drop_reason::DropReason;
use crate::engine::Engine;
use crate::ip::Packet;
use crate::transport::udp::Datagram;
use crate::within::ra::Advertiser;
use core::net::Ipv6Addr;

/// The servers and their state.
#[derive(Debug)]
pub(crate) struct Within {
    advertiser: Advertiser,
}

impl Within {
    pub(crate) fn new(config: &Config) -> Self {
        Self { advertiser: Advertiser::new(config) }
    }

    pub(crate) const fn next_timeout(&self) -> Option<Instant> {
        self.advertiser.next_timeout()
    }
}

impl Engine {
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
        _now: Instant,
        _mac: MacAddr,
        _packet: &Packet<'_>,
        _datagram: &Datagram<'_>,
    ) -> Result<bool, DropReason> {
        Ok(false)
    }
}
