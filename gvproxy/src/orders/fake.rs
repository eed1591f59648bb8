//! A network without one, for tests.

use super::desk::Network;
use super::forwards::Publisher;
use super::stats::Stats;
use slipway_dns::config::gvproxy::Zone;
use slipway_netstack::addr::MacAddr;
use slipway_portfwd::{AddError, Rule, RuleId};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// A network that remembers what was asked of it.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) rules: Vec<(RuleId, Rule)>,
    next: u64,
    pub(crate) busy: bool,
    pub(crate) joined: Vec<(OwnedFd, Vec<u8>, bool)>,
    pub(crate) zones: Vec<Zone>,
    pub(crate) kept: Vec<(Ipv4Addr, MacAddr)>,
    pub(crate) adopted: Vec<OwnedFd>,
    pub(crate) refuse: bool,
    pub(crate) peers: Vec<(SocketAddr, UnixStream)>,
}

impl Publisher for Fake {
    fn publish(&mut self, rule: Rule) -> Result<RuleId, AddError> {
        if self.busy {
            let endpoint = "127.0.0.1:80".parse::<SocketAddr>().unwrap().into();
            let error = io::Error::from_raw_os_error(nix::libc::EADDRINUSE);
            return Err(AddError::Listen { proto: rule.proto(), endpoint, error });
        }
        self.next += 1;
        let id = core::num::NonZeroU64::new(self.next).unwrap().into();
        self.rules.push((id, rule));
        Ok(id)
    }

    fn withdraw(&mut self, id: RuleId) {
        self.rules.retain(|(other, _)| *other != id);
    }
}

impl Network for Fake {
    fn dial(&mut self, guest: SocketAddr) -> io::Result<(u64, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let number = u64::try_from(self.peers.len()).unwrap();
        // One that refuses is one whose end is gone.
        if !self.refuse {
            self.peers.push((guest, theirs));
        }
        Ok((number, ours.into()))
    }

    fn is_open(&mut self, connection: u64) -> bool {
        usize::try_from(connection).is_ok_and(|number| number < self.peers.len())
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<()> {
        self.adopted.push(socket);
        Ok(())
    }

    fn join(&mut self, stream: OwnedFd, first: Vec<u8>, fast: bool) -> io::Result<()> {
        self.joined.push((stream, first, fast));
        Ok(())
    }

    fn stations(&self) -> Vec<(MacAddr, u64)> {
        vec![(MacAddr([9; 6]), 1), (MacAddr([2, 0, 0, 0, 0, 1]), 0)]
    }

    fn leases(&self) -> Vec<(IpAddr, MacAddr)> {
        vec![
            ("192.168.127.2".parse().unwrap(), MacAddr([2; 6])),
            ("192.168.127.1".parse().unwrap(), MacAddr([1; 6])),
        ]
    }

    fn keep(&mut self, address: Ipv4Addr, station: MacAddr) -> Result<(), String> {
        self.kept.push((address, station));
        Ok(())
    }

    fn add_zone(&mut self, zone: Zone) -> Result<(), String> {
        self.zones.push(zone);
        Ok(())
    }

    fn stats(&self) -> Stats {
        Stats { bytes_sent: 7, ..Stats::default() }
    }
}
