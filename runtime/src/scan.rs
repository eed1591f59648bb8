//! Rules of `auto`: a look a second at who listens on either side, and their ports follow.
//!
//! Nobody is told when a listener opens, so it takes a look; but only while there is a rule that scans, and one look
//! serves all of them. Both descriptors are opened at the start, for the sandbox takes that away. What follows from a
//! look is pure (`portfwd/src/auto.rs`), and done by the table.

use slipway_host::driver::Driver;
use slipway_host::inside::Side;
use slipway_host::netlink::{Diag, Listening};
use slipway_netstack::Instant;
use slipway_portfwd::Table;
use slipway_portfwd::auto::open_ports;
use slipway_portfwd::rule::Proto;
use std::io;
use std::time::Duration;

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// A look into both namespaces.
#[derive(Debug)]
pub(crate) struct Scanner {
    host: Diag,
    namespace: Diag,
    /// No look before that.
    next: Instant,
    /// The last look has failed, and that was told.
    complained: bool,
}

impl Scanner {
    /// Opens both, the namespace's by the driver's thread inside.
    ///
    /// # Errors
    /// There is no such thread; neither sock_diag nor /proc/net is to be had.
    pub(crate) fn open(driver: &Driver) -> io::Result<Self> {
        let inside = driver.inside().ok_or(io::ErrorKind::NotConnected)?;
        let (host, namespace) = (Diag::open()?, inside.ask(Diag::open)??);
        Ok(Self { host, namespace, next: Instant::ZERO, complained: false })
    }

    /// When [`Scanner::look`] is due; `None`: no rule scans.
    pub(crate) fn next_deadline(&self, table: &Table) -> Option<Instant> {
        table.scans().then_some(self.next)
    }

    /// Looks, if it is time, and has the ports of the rules follow.
    pub(crate) fn look(&mut self, now: Instant, table: &mut Table, driver: &mut Driver) {
        if self.next_deadline(table).is_none_or(|at| now < at) {
            return;
        }
        self.next = now + PERIOD;
        let seen = self.host.look().and_then(|host| self.namespace.look().map(|inside| (host, inside)));
        let (host, namespace) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                // What is open stays open.
                if !self.complained {
                    log::warn!("ports do not follow those who listen: {error}");
                }
                self.complained = true;
                return;
            }
        };
        self.complained = false;
        // What was ours at the time of the look, whatever is opened from here on.
        let [at_host, inside] = [Side::Host, Side::Namespace].map(|side| ours(table, side));
        for (side, across, ours) in [(Side::Host, &namespace, &inside), (Side::Namespace, &host, &at_host)] {
            for proto in [Proto::Tcp, Proto::Udp] {
                let open = open_ports(proto, across, ours);
                table.follow(side, proto, &open, driver);
            }
        }
    }
}

/// The ports that `table` itself listens on.
fn ours(table: &Table, side: Side) -> Listening {
    let ports = |proto| table.listening(side, proto).collect();
    Listening { tcp: ports(Proto::Tcp), udp: ports(Proto::Udp) }
}
