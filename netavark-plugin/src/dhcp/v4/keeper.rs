//! One client of DHCP: obtains a lease, then keeps it for as long as the container lives.

use crate::Result;
use crate::dhcp::drive::Drive;
use crate::dhcp::keeping::{PAUSE, Stop};
use crate::dhcp::target::Target;
use crate::dhcp::timer;
use slipway_host::{dhcp_filter, random};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::dhcp_client::{Client, Event, Identity, Lease};
use tokio::sync::oneshot;

#[derive(Debug)]
pub(in crate::dhcp) struct Keeper {
    mac: MacAddr,
    drive: Drive<Client>,
}

impl Keeper {
    /// A client without a lease.
    pub(in crate::dhcp) fn new(interface: String, identity: Identity) -> Result<Self> {
        let mac = identity.mac;
        let client = Client::new(identity, random::bytes()?, timer::now()?);
        Ok(Self { mac, drive: Drive::new(interface, dhcp_filter::answers_to(mac).to_vec(), client)? })
    }

    /// Obtains a lease. May be dropped at any moment.
    pub(in crate::dhcp) async fn acquire(&mut self) -> Result<Lease> {
        loop {
            if let Event::Bound(lease) = self.drive.next().await? {
                return Ok(*lease);
            }
        }
    }

    /// Keeps the lease `held` until it is told to stop, or the container is gone; the address in the container follows.
    /// Says whether the container is gone.
    pub(in crate::dhcp) async fn keep(
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
                event = self.drive.next() => event,
            };
            match event {
                Ok(_) if !target.exists() => {
                    log::info!("the container of {} is gone: its lease ends", self.mac);
                    self.release();
                    return true;
                }
                // What could not be set is tried again at the next renewal.
                Ok(Event::Bound(lease)) => match self.follow(&held, &lease, &target) {
                    Ok(()) => held = *lease,
                    Err(error) => log::error!("cannot give {} to {}: {error}", lease.address, self.mac),
                },
                Ok(Event::Lost(why)) => {
                    log::warn!("the lease of {} for {} has ended: {why:?}", held.address, self.mac);
                }
                Err(error) => {
                    log::warn!("cannot renew the lease of {}: {error}", self.mac);
                    // A machine whose clock fails has worse problems; this only must not spin.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Gives the lease back, if that can be said: nobody waits for an answer.
    pub(in crate::dhcp) fn release(&mut self) {
        let Some(frame) = self.drive.machine.release() else { return };
        if let Err(error) = self.drive.tell(&frame) {
            log::warn!("the server is not told that the lease of {} has ended: {error}", self.mac);
        }
    }

    /// Has the container follow what the server granted, as far as it is not what it has.
    fn follow(&self, held: &Lease, lease: &Lease, target: &Target) -> Result<()> {
        let mac = self.mac;
        log::debug!("the lease of {} for {mac} goes on for {} s", lease.address, lease.times.end);
        if (held.address, &held.gateways) == (lease.address, &lease.gateways) {
            return Ok(());
        }
        log::info!("ip or gateway for mac {mac} changed, update address");
        target.change(held, lease)
    }
}
