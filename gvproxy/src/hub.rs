//! The network at work: a session, its names, and the guests' links, with what orders may ask of them.
//!
//! **Who ends it.** A hypervisor's socket is there for its guests, and nobody waits for a network without any: so the
//! process ends when the last guest has gone, if one that came to such a socket has been there. Guests that came over
//! the HTTP API or HyperKit's socket come and go; with `-stay` all do.

use crate::config::Config;
use crate::listen::{BadUrl, Endpoint, words};
use crate::network::{self, names::Names};
use crate::orders::forwards::Publisher;
use crate::orders::stats::Stats;
use crate::orders::{Desk, Network};
use crate::own::Own;
use slipway_dns::config::gvproxy::Zone;
use slipway_host::device::pcap::Packets;
use slipway_host::device::{Framing, GuestNews, LinkId};
use slipway_host::driver::GuestListener;
use slipway_host::sandbox::caps::Capability;
use slipway_host::sandbox::files::{Place, of_resolv_conf};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::{self, Needs};
use slipway_host::signals::Signals;
use slipway_host::{resolv_conf, strerror};
use slipway_netstack::FlowId;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::Capabilities;
use slipway_portfwd::{AddError, Rule, RuleId};
use slipway_runtime::serve::{End, Ending, Session};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// The network.
#[derive(Debug)]
pub struct Hub {
    session: Session,
    names: Names,
    /// Links that came by an order.
    ordered: HashSet<LinkId>,
    /// A guest has been here whose end is ours, if it is the last one.
    met: bool,
    stays: bool,
    /// How the last link ended.
    reason: Option<io::Error>,
    /// Where guests come from, for what is said when they go.
    from: String,
}

fn system(error: &io::Error) -> String {
    strerror::words(error)
}

impl Hub {
    /// A network without guests, which ends at these signals.
    ///
    /// # Errors
    /// In a line.
    pub fn open(config: &Config, signals: Signals) -> Result<Self, String> {
        let names = Names::new(&network::zones(config)).map_err(|error| error.to_string())?;
        let engine = |machine| network::engine(config, machine);
        let mut session = Session::open_idle(Capabilities::default(), config.stack.gateway_mac, engine)
            .map_err(|error| error.to_string())?;
        if let Some(path) = &config.stack.capture_file {
            let packets = File::create(path).and_then(Packets::new);
            session
                .driver_mut()
                .record(packets.map_err(|error| words(&format!("open {}", path.display()), &error))?);
        }
        session.use_names(names.clone());
        session.heed_guests();
        session.listen(signals).map_err(|error| system(&error))?;
        let stays = config.stay || config.interfaces.vpnkit.is_some();
        let (ordered, from) = (HashSet::new(), "@".to_owned());
        Ok(Self { session, names, ordered, met: false, stays, reason: None, from })
    }

    /// Lets guests in wherever they are to come to.
    ///
    /// # Errors
    /// In a line: an address is none, or taken.
    pub fn listen_for_guests(&mut self, config: &Config, own: &mut Own) -> Result<(), String> {
        type Make = fn(OwnedFd, &Config) -> GuestListener;
        let doors: [(&str, &Option<String>, Make); 4] = [
            ("vpnkit", &config.interfaces.vpnkit, |socket, config| GuestListener::Vpnkit {
                socket,
                macs: config.stack.vpnkit_macs.clone(),
                mtu: config.stack.mtu,
            }),
            ("qemu", &config.interfaces.qemu, |socket, _| GuestListener::Qemu(socket)),
            ("bess", &config.interfaces.bess, |socket, _| GuestListener::Bess(socket)),
            ("vfkit", &config.interfaces.vfkit, |socket, _| GuestListener::Vfkit(socket)),
        ];
        for (name, address, make) in doors {
            let Some(address) = address else { continue };
            let failed = |why: String| format!("{name} listen error: {why}");
            if !address.starts_with("unix") {
                self.from.clone_from(address);
            }
            let socket = listen(address, own).map_err(failed)?;
            let joined = self.session.driver_mut().listen_for_guests(make(socket, config));
            joined.map_err(|error| failed(words("accept", &error)))?;
        }
        if config.interfaces.stdio {
            self.serve_stdio().map_err(|error| format!("stdio listen error: {}", words("open", &error)))?;
        }
        Ok(())
    }

    fn serve_stdio(&mut self) -> io::Result<()> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        self.session.driver_mut().listen_for_guests(GuestListener::Stdio { input, output })
    }

    /// Gives up what is not needed any more: files but those that go at the end and those of the host's resolver,
    /// privileges, system calls.
    ///
    /// # Errors
    /// The host's nameservers cannot be followed.
    pub fn shut_in(&mut self, own: &Own) -> Result<(), String> {
        self.session.follow_host_nameservers().map_err(|error| system(&error))?;
        let mut files = of_resolv_conf(Path::new(resolv_conf::PATH));
        files.extend(own.directories().into_iter().map(Place::removal));
        sandbox::settle(&Needs {
            files: &files,
            capabilities: &[Capability::CAP_NET_BIND_SERVICE],
            calls: Profile::Machines,
        });
        Ok(())
    }

    /// Serves until something is to be done.
    ///
    /// # Errors
    /// Why it is over.
    pub fn run(&mut self) -> Result<(), String> {
        match self.session.run() {
            Ok(End::Signal(_)) => Err("signal caught".to_owned()),
            Ok(End::Link(reason)) => {
                self.reason = Some(reason);
                Ok(())
            }
            Ok(End::Asked | End::ExitFd | End::Target) => Ok(()),
            Err(error) => Err(system(&error)),
        }
    }

    /// What has happened to guests.
    pub fn news(&mut self) -> Vec<GuestNews> {
        let news = self.session.driver_mut().guest_news();
        for one in &news {
            match one {
                GuestNews::Joined(link) => self.met |= !self.ordered.contains(link),
                GuestNews::Left { link, .. } => drop(self.ordered.remove(link)),
                GuestNews::Failed(error) => log::warn!("a guest could not be let in: {}", system(error)),
                GuestNews::Seen { .. } => {}
            }
        }
        news
    }

    /// Why it is over, if the last guest has taken it along.
    #[must_use]
    pub fn over(&self) -> Option<String> {
        let over = self.met && !self.stays && self.session.driver().links().is_empty();
        let from = &self.from;
        over.then(|| match &self.reason {
            Some(error) if error.kind() != ErrorKind::UnexpectedEof => {
                let why = words("read", error);
                format!(
                    "cannot receive packets from {from}, disconnecting: cannot read size from socket: {why}"
                )
            }
            _ => format!(
                "cannot receive packets from {from}, disconnecting: cannot read size from socket: EOF"
            ),
        })
    }

    /// Waits for this of the line to whoever gives orders.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub fn attend(&mut self, desk: &Desk) -> io::Result<()> {
        let Some(line) = desk.fd() else { return Ok(()) };
        self.session.attend(line.try_clone_to_owned()?)?;
        self.session.attend_for(desk.interest())
    }

    /// Waits for what the line is to be waited for now; for nothing, when nobody gives orders any more.
    pub fn attend_again(&mut self, desk: &Desk) {
        if desk.fd().is_none() {
            self.session.dismiss();
        } else if let Err(error) = self.session.attend_for(desk.interest()) {
            log::error!("no orders are taken any more: {}", system(&error));
            self.session.dismiss();
        }
    }

    /// Guests that have connected to the gateway's port 80.
    pub fn clients(&mut self) -> Vec<(SocketAddr, OwnedFd)> {
        let clients = self.session.driver_mut().service_clients();
        let http = clients.into_iter().filter(|(service, ..)| *service == network::HTTP);
        http.map(|(_, guest, stream)| (guest, stream)).collect()
    }

    /// Ends everything, at once: whoever is in the middle of something is told by a reset.
    pub fn end(&mut self) {
        self.session.end(Ending::AtOnce);
    }
}

impl Publisher for Hub {
    fn publish(&mut self, rule: Rule) -> Result<RuleId, AddError> {
        self.session.publish(rule)
    }

    fn withdraw(&mut self, id: RuleId) {
        self.session.withdraw(id);
    }
}

impl Network for Hub {
    fn dial(&mut self, guest: SocketAddr) -> io::Result<(u64, OwnedFd)> {
        let (flow, stream) = self.session.driver_mut().dial(guest)?;
        Ok((flow.to_bits(), stream))
    }

    fn is_open(&mut self, connection: u64) -> bool {
        self.session.driver_mut().is_open(FlowId::from_bits(connection))
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<()> {
        let link = self.session.driver_mut().adopt(socket)?;
        self.ordered.insert(link);
        Ok(())
    }

    /// Always two-byte lengths, whatever other sockets for guests there are: nobody who asks for a link speaks
    /// otherwise, but those whose next words are of the fast link.
    fn join(&mut self, stream: OwnedFd, first: Vec<u8>, fast: bool) -> io::Result<()> {
        let driver = self.session.driver_mut();
        let link =
            if fast { driver.join_fast(stream, first) } else { driver.join(stream, Framing::Le16, first) }?;
        self.ordered.insert(link);
        Ok(())
    }

    fn stations(&self) -> Vec<(MacAddr, u64)> {
        let known = self.session.driver().cam();
        known.into_iter().map(|(mac, link)| (mac, link.0.into())).collect()
    }

    fn leases(&self) -> Vec<(IpAddr, MacAddr)> {
        self.session.driver().leases()
    }

    fn keep(&mut self, address: Ipv4Addr, station: MacAddr) -> Result<(), String> {
        let kept = self.session.driver_mut().keep_address(address, station);
        kept.map_err(|why| format!("{address} cannot be kept for {station}: {why}"))
    }

    fn add_zone(&mut self, zone: Zone) -> Result<(), String> {
        self.names.add(zone).map_err(|error| error.to_string())
    }

    fn stats(&self) -> Stats {
        Stats::from(self.session.driver().peek_engine().counters())
    }
}

/// A socket that waits at this address, whose file is ours.
///
/// # Errors
/// In the words of the contract.
pub fn listen(address: &str, own: &mut Own) -> Result<OwnedFd, String> {
    let endpoint = Endpoint::parse(address).map_err(|(BadUrl::Syntax(why) | BadUrl::Scheme(why))| why)?;
    let socket = endpoint.listen()?;
    if let Some(path) = endpoint.path() {
        own.take(path);
    }
    Ok(socket)
}
