//! One client's machine, with a link and a clock: obtains a lease, then keeps it for as long as the container lives.

use super::container::Target;
use super::lease::Lease;
use super::link::Link;
use super::machine::{Event, Machine, Step};
use super::message::Identity;
use super::timer;
use crate::Result;
use slipway_host::random;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long an interface that cannot be used is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// How a keeper is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The address is not needed any more: the server is told.
    Release,
    /// Somebody else keeps it from now on.
    Forget,
}

#[derive(Debug)]
pub(super) struct Keeper {
    /// The host's interface.
    interface: String,
    identity: Identity,
    machine: Machine,
    /// Open while an answer may come.
    link: Option<Link>,
}

impl Keeper {
    /// A client without a lease.
    pub(super) fn new(interface: String, identity: Identity) -> Result<Self> {
        // Here already: an interface that is not there is the caller's mistake, not a pause.
        let link = Some(Link::open(&interface, identity.mac)?);
        let machine = Machine::new(identity.clone(), random::bytes()?, timer::now()?);
        Ok(Self { interface, identity, machine, link })
    }

    /// Obtains a lease. May be dropped at any moment.
    pub(super) async fn acquire(&mut self) -> Result<Lease> {
        loop {
            if let Event::Bound(lease) = self.next().await? {
                return Ok(lease);
            }
        }
    }

    /// Keeps the lease `held` until it is told to stop, or the container is gone; the address in the container follows.
    /// Says whether the container is gone.
    pub(super) async fn keep(
        mut self,
        mut held: Lease,
        target: Target,
        mut stop: oneshot::Receiver<Stop>,
    ) -> bool {
        loop {
            let event = tokio::select! {
                // Without a sender the proxy ends; the containers live on with their addresses.
                reason = &mut stop => {
                    if reason == Ok(Stop::Release) {
                        self.release();
                    }
                    return false;
                }
                event = self.next() => event,
            };
            match event {
                Ok(_) if !target.exists() => {
                    log::info!("the container of {} is gone: its lease ends", self.identity.mac);
                    self.release();
                    return true;
                }
                Ok(Event::Bound(lease)) => {
                    self.follow(&held, &lease, &target);
                    held = lease;
                }
                Ok(Event::Lost(why)) => {
                    log::warn!("the lease of {} for {} has ended: {why:?}", held.address, self.identity.mac);
                }
                Err(error) => {
                    log::warn!("cannot renew the lease of {}: {error}", self.identity.mac);
                    // A machine whose clock fails has worse problems; this only must not spin.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Gives the lease back, if that can be said: nobody waits for an answer.
    pub(super) fn release(&mut self) {
        let mac = self.identity.mac;
        let Some(frame) = self.machine.release() else { return };
        let sent = match self.link.take().map_or_else(|| Link::open(&self.interface, mac), Ok) {
            Ok(link) => link.send(&frame).map_err(crate::Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            log::warn!("the server is not told that the lease of {mac} has ended: {error}");
        }
    }

    /// Runs the machine until something is to be known. May be dropped at any moment.
    async fn next(&mut self) -> Result<Event> {
        loop {
            if self.link.is_some() != self.machine.listening() {
                self.link = match self.machine.listening() {
                    true => Some(Link::open(&self.interface, self.identity.mac)?),
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

    fn send(&mut self, frame: &[u8]) {
        // The machine has just begun an exchange, and the link with it.
        let link = self.link.take().map_or_else(|| Link::open(&self.interface, self.identity.mac), Ok);
        match link {
            Ok(link) => match link.send(frame) {
                Ok(()) => self.link = Some(link),
                Err(error) => log::debug!("{}: {error}; it is repeated later", self.interface),
            },
            Err(error) => log::warn!("cannot renew the lease of {}: {error}", self.identity.mac),
        }
    }

    fn follow(&self, held: &Lease, lease: &Lease, target: &Target) {
        let mac = self.identity.mac;
        log::debug!("the lease of {} for {mac} goes on for {} s", lease.address, lease.times.end);
        if (held.address, &held.gateways) == (lease.address, &lease.gateways) {
            return;
        }
        log::info!("ip or gateway for mac {mac} changed, update address");
        if let Err(error) = target.change(held, lease) {
            log::error!("cannot give {} to {mac}: {error}", lease.address);
        }
    }
}
