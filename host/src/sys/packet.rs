//! Packet sockets (packet(7)): whole frames of one interface, as the kernel's filter lets them through.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// An instruction of the classic packet filter (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do: `libc::BPF_*` combined.
    pub code: u16,
    /// How many instructions to skip when a test is true.
    pub if_true: u8,
    /// The same when it is false.
    pub if_false: u8,
    /// The operand.
    pub operand: u32,
}

/// Opens a non-blocking socket that receives the frames of the interface number `interface` that pass `filter`, of all
/// protocols and both directions, also those that the interface itself does not take. What is sent goes out of it.
///
/// # Errors
/// As [`listen`].
pub fn open(interface: u32, filter: &[Instruction]) -> io::Result<OwnedFd> {
    receiver(interface, filter, true)
}

/// The same for frames that the interface takes: the kernel does not note a change of its mode.
///
/// Nothing is received before the filter is in place: only the last step names a protocol.
///
/// # Errors
/// EPERM without CAP_NET_RAW; ENODEV or ENXIO without such an interface; ENETDOWN when it is down; EINVAL for a filter
/// that the kernel finds wrong.
pub fn listen(interface: u32, filter: &[Instruction]) -> io::Result<OwnedFd> {
    receiver(interface, filter, false)
}

fn receiver(interface: u32, filter: &[Instruction], everything: bool) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    let index = i32::try_from(interface).map_err(|_| Errno::ENODEV)?;
    attach(&fd, filter)?;
    if everything {
        let mut promiscuous = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC).map_err(|_| Errno::EINVAL)?,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &mut promiscuous)?;
    }
    bind(&fd, index, u16::try_from(libc::ETH_P_ALL).map_err(|_| Errno::EINVAL)?)?;
    Ok(fd)
}

/// Opens a non-blocking socket that sends out of the interface number `interface` and receives nothing: it names no
/// protocol.
///
/// # Errors
/// EPERM without CAP_NET_RAW over the calling thread's network namespace; ENODEV or ENXIO without such an interface.
pub fn sender(interface: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    bind(&fd, i32::try_from(interface).map_err(|_| Errno::ENODEV)?, 0)?;
    Ok(fd)
}

fn attach(fd: &OwnedFd, filter: &[Instruction]) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = filter
        .iter()
        .map(|step| libc::sock_filter {
            code: step.code,
            jt: step.if_true,
            jf: step.if_false,
            k: step.operand,
        })
        .collect();
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let mut header = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // `program` lives until the end of this function, and the kernel copies it.
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &mut header)
}

/// Sets an option whose value is a C structure. Only for the structures of this file.
fn set<T>(fd: &OwnedFd, level: i32, name: i32, value: &mut T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `value` is one initialised structure of the kernel's layout and `len` its size; the kernel only reads it.
    // A pointer within it (sock_fprog) points to as many live instructions as it says.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const *value).cast(), len) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

fn bind(fd: &OwnedFd, index: i32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(|_| Errno::EINVAL)?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `address` is one initialised sockaddr_ll and `len` its size; the kernel only reads it.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// Sends one frame, Ethernet header included.
///
/// # Errors
/// The kernel's: EAGAIN when the device's queue is full, ENETDOWN when it is down.
pub fn send(fd: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    nix::sys::socket::send(fd.as_raw_fd(), frame, nix::sys::socket::MsgFlags::empty())?;
    Ok(())
}

/// Receives one frame, cut to the size of `buffer`, and gives its length.
///
/// # Errors
/// EAGAIN when there is none; ENETDOWN once after the interface went down.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(nix::sys::socket::recv(fd.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Netlink;
    use crate::netns::testing::in_new_namespace;
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    const ACCEPT: Instruction = Instruction { code: 0x06, if_true: 0, if_false: 0, operand: 0xffff };
    const DROP: Instruction = Instruction { operand: 0, ..ACCEPT };

    #[test]
    fn frames_that_pass_the_filter_come_in_and_others_do_not() {
        in_new_namespace("frames_that_pass_the_filter_come_in_and_others_do_not", || {
            let mut netlink = Netlink::open().unwrap();
            let lo = netlink.interface("lo").unwrap();
            netlink.set_up(&lo).unwrap();
            let all = listen(lo.index, &[ACCEPT]).unwrap();
            let none = open(lo.index, &[DROP]).unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            // Loopback delivers within the call.
            sender.send_to(b"hello, filter", sender.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 200];
            let len = receive(all.as_fd(), &mut buffer).unwrap();
            assert!(buffer.get(..len).unwrap().ends_with(b"hello, filter"));
            assert_eq!(receive(none.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            send(none.as_fd(), &[0xff; 60]).unwrap();
            assert!((0..4).any(|_| receive(all.as_fd(), &mut buffer).is_ok_and(|len| len == 60)));
        });
    }

    #[test]
    fn a_sender_sends_and_hears_nothing() {
        in_new_namespace("a_sender_sends_and_hears_nothing", || {
            let mut netlink = Netlink::open().unwrap();
            let lo = netlink.interface("lo").unwrap();
            let sender = sender(lo.index).unwrap();
            assert_eq!(send(sender.as_fd(), &[0xff; 60]).unwrap_err().raw_os_error(), Some(libc::ENETDOWN));
            netlink.set_up(&lo).unwrap();
            let all = open(lo.index, &[ACCEPT]).unwrap();
            send(sender.as_fd(), &[0xfe; 61]).unwrap();
            let mut buffer = [0; 200];
            assert!((0..4).any(|_| receive(all.as_fd(), &mut buffer).is_ok_and(|len| len == 61)));
            let none = receive(sender.as_fd(), &mut buffer).unwrap_err();
            assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
            let missing = super::sender(4711).unwrap_err().raw_os_error();
            assert!(matches!(missing, Some(libc::ENODEV | libc::ENXIO)), "{missing:?}");
        });
    }

    #[test]
    fn what_is_wrong_is_said() {
        in_new_namespace("what_is_wrong_is_said", || {
            let lo = Netlink::open().unwrap().interface("lo").unwrap();
            assert_eq!(open(lo.index, &[]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
            let missing = open(4711, &[ACCEPT]).unwrap_err().raw_os_error();
            assert!(matches!(missing, Some(libc::ENODEV | libc::ENXIO)), "{missing:?}");
            assert_eq!(open(u32::MAX, &[ACCEPT]).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        });
    }
}
