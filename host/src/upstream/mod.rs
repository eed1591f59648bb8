//! Stage 5 on the host's side: real sockets.

use crate::epoll::EventSet;
use nix::sys::epoll::EpollFlags;
use slipway_netstack::FlowId;
use slipway_netstack::upstream::{DatagramError, Empty, Errno, Event, Meta, Peek, Received, Sent, Upstream};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// The sockets of all flows, and the epoll set that they are in.
#[derive(Debug)]
pub struct Sockets {
    events: EventSet,
}

impl Sockets {
    /// No sockets yet.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self { events: EventSet::new()? })
    }

    /// The epoll set.
    #[must_use]
    pub fn events(&self) -> &EventSet {
        &self.events
    }

    /// What `flags` of the socket of `flow` mean to the engine.
    pub fn decode(&mut self, _flow: FlowId, _flags: EpollFlags) -> impl Iterator<Item = Event> + use<> {
        std::iter::empty()
    }

    /// Closes an accepted connection with a reset.
    pub fn refuse(socket: OwnedFd) {
        drop(socket);
    }

    /// Makes an accepted connection the socket of `flow`.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory. The socket is then closed.
    pub fn attach_tcp(&mut self, _flow: FlowId, _socket: OwnedFd) -> io::Result<()> {
        Ok(())
    }

    /// Lets `flow` send through a socket that it shares with others.
    pub fn attach_udp_shared(&mut self, _flow: FlowId, _socket: Rc<OwnedFd>) {}
}

impl Upstream for Sockets {
    fn tcp_connect(&mut self, _: FlowId, _: SocketAddr, _: Option<IpAddr>) -> Result<(), Errno> {
        Err(Errno::Exhausted)
    }
    fn tcp_send(&mut self, _: FlowId, _: &[u8], _: &[u8]) -> Sent {
        Sent::Failed(Errno::BadSocket)
    }
    fn tcp_peek(&mut self, _: FlowId, _: usize, _: &mut [u8]) -> Peek {
        Peek::Failed(Errno::BadSocket)
    }
    fn tcp_consume(&mut self, _: FlowId, _: usize) {}
    fn tcp_shutdown(&mut self, _: FlowId) {}
    fn tcp_reset(&mut self, _: FlowId) {}
    fn udp_open(&mut self, _: FlowId, _: IpAddr, _: Option<IpAddr>) -> Result<(), Errno> {
        Err(Errno::Exhausted)
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
    fn ping_open(&mut self, _: FlowId, _: IpAddr, _: Option<IpAddr>) -> Result<(), Errno> {
        Err(Errno::Exhausted)
    }
    fn ping_send(&mut self, _: FlowId, _: IpAddr, _: u16, _: &[u8], _: Meta) -> Result<(), Errno> {
        Err(Errno::BadSocket)
    }
    fn ping_receive(&mut self, _: FlowId, _: &mut [u8]) -> Result<(u16, Received), Empty> {
        Err(Empty)
    }
    fn close(&mut self, _: FlowId) {}
}
