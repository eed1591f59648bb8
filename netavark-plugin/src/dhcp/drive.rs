//! A client's machine, driven: its frames go to a link and come from there, its deadlines are waited for.
//!
//! The machines know nothing of sockets and clocks; this knows nothing of leases. The link is open only while an answer
//! may come, so a proxy whose leases all rest holds no socket for them, and is not woken by what others say.

use super::link::Link;
use super::timer;
use crate::Result;
use slipway_host::sys::packet::Instruction;
use slipway_netstack::dhcp_client::{Machine, Step};
use std::time::Duration;

/// How long an interface that cannot be used is left alone.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Drive<M> {
    /// The host's interface.
    interface: String,
    filter: Vec<Instruction>,
    pub(super) machine: M,
    /// Open while an answer may come.
    link: Option<Link>,
}

impl<M: Machine> Drive<M> {
    /// Opens the host's interface for frames that pass `filter`.
    pub(super) fn new(interface: String, filter: Vec<Instruction>, machine: M) -> Result<Self> {
        // Here already: an interface that is not there is the caller's mistake, not a pause.
        let link = Some(Link::open(&interface, &filter)?);
        Ok(Self { interface, filter, machine, link })
    }

    /// Runs the machine until something is to be known. May be dropped at any moment.
    pub(super) async fn next(&mut self) -> Result<M::Event> {
        loop {
            if self.link.is_some() != self.machine.listening() {
                self.link = match self.machine.listening() {
                    true => Some(Link::open(&self.interface, &self.filter)?),
                    false => None,
                };
            }
            let deadline = self.machine.deadline();
            let frame = match &self.link {
                None => {
                    timer::until(deadline).await?;
                    None
                }
                Some(link) => tokio::select! {
                    waited = timer::until(deadline) => {
                        waited?;
                        None
                    }
                    frame = link.receive() => Some(frame),
                },
            };
            let step = match frame {
                None => self.machine.timeout(timer::now()?),
                Some(Ok(frame)) => self.machine.received(timer::now()?, &frame),
                Some(Err(error)) => {
                    // It is down, or gone; a new socket may find it again.
                    log::debug!("{}: {error}", self.interface);
                    self.link = None;
                    tokio::time::sleep(PAUSE).await;
                    Step::default()
                }
            };
            if let Some(frame) = &step.send {
                self.send(frame);
            }
            if let Some(event) = step.event {
                return Ok(event);
            }
        }
    }

    /// Says something to which no answer is waited for.
    pub(super) fn tell(&mut self, frame: &[u8]) -> Result<()> {
        let link = self.link.take().map_or_else(|| Link::open(&self.interface, &self.filter), Ok)?;
        Ok(link.send(frame)?)
    }

    fn send(&mut self, frame: &[u8]) {
        // The machine has just begun an exchange, and the link with it.
        let link = self.link.take().map_or_else(|| Link::open(&self.interface, &self.filter), Ok);
        match link {
            Ok(link) => match link.send(frame) {
                Ok(()) => self.link = Some(link),
                Err(error) => log::debug!("{}: {error}; it is repeated later", self.interface),
            },
            Err(error) => log::warn!("cannot renew a lease on {}: {error}", self.interface),
        }
    }
}
