//! The host's interface, as a place where one client's DHCP frames go out and come in.
//!
//! A packet socket in promiscuous mode, because the answers are for the container's MAC address, which the interface
//! may not know. The kernel's filter lets nothing through but answers to that client, so a proxy with many of them is
//! not woken by the others'. It sees frames before bridges and macvlans take them (all protocols, packet(7)). The
//! filters of both versions stand with their frames.

use super::async_fd;
use slipway_host::netlink::Netlink;
use slipway_host::sys::packet::{self, Instruction};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The longest frame that is read whole. We tell servers not to send more.
const FRAME_MAX: usize = 1600;

#[derive(Debug)]
pub(super) struct Link(AsyncFd<OwnedFd>);

impl Link {
    /// Opens the interface for frames that pass `filter`.
    pub(super) fn open(interface: &str, filter: &[Instruction]) -> crate::Result<Self> {
        // Looked up each time: a parent may have been made anew.
        let index = Netlink::open()?.interface(interface)?.index;
        let socket = packet::open(index, filter)?;
        Ok(Self(async_fd::watch(socket)?))
    }

    /// Sends a frame, if the device takes it now. One that is lost is repeated by whoever waits for its answer.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        packet::send(self.0.get_ref().as_fd(), frame)
    }

    /// Waits for a frame.
    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; FRAME_MAX];
        let read = |socket: &OwnedFd| packet::receive(socket.as_fd(), &mut buffer);
        let len = self.0.async_io(Interest::READABLE, read).await?;
        Ok(buffer.get(..len).unwrap_or_default().to_vec())
    }
}

#[cfg(test)]
pub(super) mod tests;
