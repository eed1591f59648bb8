//! The host's interface, as a place where one client's DHCP frames go out and come in.
//!
//! A packet socket in promiscuous mode, because the answers are for the container's MAC address, which the interface may
//! not know. The kernel's filter lets nothing through but answers to that client, so a proxy with many of them is not
//! woken by the others'. It sees frames before bridges and macvlans take them (all protocols, packet(7)). The filter here
//! is that of IPv4; the one of IPv6 is in [`super::v6`].

use super::frame::{CLIENT, IPV4, UDP};
use super::ready;
use nix::libc;
use slipway_host::netlink::Netlink;
use slipway_host::sys::packet::{self, Instruction};
use slipway_netstack::addr::MacAddr;
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
        Ok(Self(ready::watch(socket)?))
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

/// Whole UDP datagrams over IPv4 to port 68 whose message is for the hardware address `mac`.
pub(super) fn filter(mac: MacAddr) -> [Instruction; 15] {
    const DROP: u8 = 14;
    const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const HEADER_LEN: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
    // Behind the IP header, whose length the one before loads.
    const HALF_BEHIND: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
    const WORD_BEHIND: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
    let step = |code: u32, operand: u32| {
        let code = u16::try_from(code).unwrap_or_default();
        Instruction { code, if_true: 0, if_false: 0, operand }
    };
    // Jumps count from the instruction after the test, which stands at the place `at`.
    let equal = |at: u8, operand: u32| Instruction {
        if_false: DROP - at - 1,
        ..step(libc::BPF_JMP | libc::BPF_JEQ, operand)
    };
    let no_bit = |at: u8, bits: u32| Instruction {
        if_true: DROP - at - 1,
        ..step(libc::BPF_JMP | libc::BPF_JSET, bits)
    };
    let [a, b, c, d, e, f] = mac.0;
    [
        step(HALF, 12),
        equal(1, IPV4.into()),
        step(BYTE, 23),
        equal(3, UDP.into()),
        step(HALF, 20),
        no_bit(5, 0x3fff), // a fragment
        step(HEADER_LEN, 14),
        step(HALF_BEHIND, 14 + 2),
        equal(8, CLIENT.into()),
        step(WORD_BEHIND, 14 + 8 + 28), // the hardware address, 28 bytes into the message
        equal(10, u32::from_be_bytes([a, b, c, d])),
        step(HALF_BEHIND, 14 + 8 + 32),
        equal(12, u16::from_be_bytes([e, f]).into()),
        step(libc::BPF_RET, u16::MAX.into()),
        step(libc::BPF_RET, 0),
    ]
}

#[cfg(test)]
pub(super) mod tests;
