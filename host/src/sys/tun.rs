//! `/dev/net/tun`: the ioctls that turn an open file into a TAP, and those that tell what it can do.
//!
//! Sources: Linux `Documentation/networking/tuntap.rst`, `include/uapi/linux/if_tun.h`, `drivers/net/tun.c`. What the
//! code leans on (tested at the end of this file and in `device/tap/tests.rs`, but for whose the offloads are):
//!
//! * TUNSETIFF attaches to a persistent interface of that name if there is one. IFF_VNET_HDR and IFF_NO_PI are
//!   taken from the attaching call; IFF_MULTI_QUEUE has to be what it was at creation (else EINVAL).
//! * The length of the virtio-net header belongs to the *device*, so one that another program left at 12 is set
//!   back to 10.
//! * TUNSETOFFLOAD tells what **we** understand, for frames from the guest. It too belongs to the device.
//!   TUN_F_USO4 and TUN_F_USO6 exist since Linux 6.2 and only as a pair; older kernels answer EINVAL.
//! * TUNGETIFF cannot tell whether packet information is there: its bit for IFF_NO_PI (0x1000) is IFF_NOFILTER too,
//!   which is set for every file without a socket filter. See [`has_packet_info`].
//! * What we may *send* needs no announcement: with the header the kernel takes any kind of train that it knows.

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use slipway_netstack::surely::Surely;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

mod ioctl {
    use nix::libc;
    nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(tungetiff, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_read_bad!(tungetfeatures, libc::TUNGETFEATURES, libc::c_uint);
    nix::ioctl_write_int_bad!(tunsetoffload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_ptr_bad!(tunattachfilter, libc::TUNATTACHFILTER, libc::sock_fprog);
    nix::ioctl_write_ptr_bad!(tundetachfilter, libc::TUNDETACHFILTER, libc::sock_fprog);
    nix::ioctl_write_int_bad!(tunsetpersist, libc::TUNSETPERSIST);
    nix::ioctl_write_ptr_bad!(tunsetvnethdrsz, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_read_bad!(tungetvnethdrsz, libc::TUNGETVNETHDRSZ, libc::c_int);
}

/// The device node of the TUN/TAP driver.
pub const DEVICE: &str = "/dev/net/tun";

/// The longest interface name, without the closing zero byte.
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;

bitflags::bitflags! {
    /// How an interface was or is to be attached (IFF_*).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// Ethernet frames, not IP packets.
        const TAP = 0x0002;
        /// IP packets: what a TUN has instead of [`Flags::TAP`].
        const TUN = 0x0001;
        /// No four bytes of packet information in front of each frame.
        const NO_PI = 0x1000;
        /// A virtio-net header in front of each frame.
        const VNET_HDR = 0x4000;
        /// Several files may attach to the interface.
        const MULTI_QUEUE = 0x0100;
        /// The interface outlives its files.
        const PERSIST = 0x0800;
        const _ = !0;
    }
}

bitflags::bitflags! {
    /// What the owner of a TAP understands in frames that it reads (TUN_F_*).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Offloads: u8 {
        /// Partial checksums.
        const CSUM = 0x01;
        /// TCP trains over IPv4.
        const TSO4 = 0x02;
        /// TCP trains over IPv6.
        const TSO6 = 0x04;
        /// TCP trains whose first segment carries CWR.
        const TSO_ECN = 0x08;
        /// UDP trains over IPv4.
        const USO4 = 0x20;
        /// UDP trains over IPv6.
        const USO6 = 0x40;
    }
}

/// What to ask for, most wanted first; the kernel says EINVAL to a set that it does not know.
pub const OFFLOAD_LADDER: [Offloads; 5] = [
    Offloads::all(),
    Offloads::CSUM.union(Offloads::TSO4).union(Offloads::TSO6).union(Offloads::TSO_ECN),
    Offloads::CSUM.union(Offloads::TSO4).union(Offloads::TSO6),
    Offloads::CSUM,
    Offloads::empty(),
];

/// What an open file is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The interface's name (within its own network namespace).
    pub name: String,
    /// How.
    pub flags: Flags,
}

/// Opens the device node, non-blocking.
///
/// # Errors
/// Those of open(2): ENOENT without the driver or the node, EACCES when its mode forbids it, ENODEV when the module
/// is missing, EPERM under a device cgroup.
pub fn open_device(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Attaches an open device node to the interface `name`, which is made if there is none; returns its name.
///
/// # Errors
/// EINVAL: the name is too long or empty, a persistent interface has other flags, or `name` is no TAP.
/// EBUSY: somebody else is attached. EPERM: no CAP_NET_ADMIN in this network namespace.
pub fn attach(fd: BorrowedFd<'_>, name: &str, flags: Flags) -> io::Result<String> {
    let mut request = empty_request();
    if name.is_empty() || name.len() > NAME_MAX || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = i16::from_ne_bytes(flags.bits().to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives on our stack for the whole call. The macro's
    // pointer is `*const`, so the memory is handed over as mutable through a raw pointer.
    unsafe { ioctl::tunsetiff(fd.as_raw_fd(), &raw mut request) }?;
    Ok(name_of(&request))
}

/// What `fd` is attached to.
///
/// # Errors
/// EBADFD when it is attached to nothing; ENOTTY or EINVAL when it is no TUN/TAP file at all.
pub fn attachment(fd: BorrowedFd<'_>) -> io::Result<Attachment> {
    let mut request = empty_request();
    // SAFETY: TUNGETIFF writes one `ifreq`, which lives on our stack for the whole call.
    unsafe { ioctl::tungetiff(fd.as_raw_fd(), &raw mut request) }?;
    // SAFETY: the kernel filled this member, and every bit pattern is a valid short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(Attachment {
        name: name_of(&request),
        flags: Flags::from_bits_retain(u16::from_ne_bytes(flags.to_ne_bytes())),
    })
}

/// Whether four bytes of packet information stand in front of each frame of the TAP.
///
/// A filter that lets everything through makes the ambiguous bit tell the truth; it is taken off at once. A file that
/// has a filter already answers truthfully by itself, and keeps it.
///
/// # Errors
/// EBADFD when `fd` is attached to nothing; EINVAL when it is no TAP.
pub fn has_packet_info(fd: BorrowedFd<'_>) -> io::Result<bool> {
    if !attachment(fd)?.flags.contains(Flags::NO_PI) {
        return Ok(true);
    }
    // BPF_RET | BPF_K: take the whole frame.
    let mut all = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX };
    let program = libc::sock_fprog { len: 1, filter: &raw mut all };
    // SAFETY: TUNATTACHFILTER reads one `sock_fprog` and the `len` instructions that it points to; both live on our
    // stack for the whole call, and the kernel keeps a copy.
    unsafe { ioctl::tunattachfilter(fd.as_raw_fd(), &raw const program) }?;
    let truth = attachment(fd);
    // SAFETY: TUNDETACHFILTER does not look at its argument; it is a valid one all the same.
    unsafe { ioctl::tundetachfilter(fd.as_raw_fd(), &raw const program) }?;
    Ok(!truth?.flags.contains(Flags::NO_PI))
}

/// The flags that the driver knows.
///
/// # Errors
/// ENOTTY when `fd` is no TUN/TAP file.
pub fn features(fd: BorrowedFd<'_>) -> io::Result<Flags> {
    let mut bits: libc::c_uint = 0;
    // SAFETY: TUNGETFEATURES writes one unsigned int, which lives on our stack for the whole call.
    unsafe { ioctl::tungetfeatures(fd.as_raw_fd(), &raw mut bits) }?;
    Ok(Flags::from_bits_retain(u16::try_from(bits & 0xffff).surely()))
}

/// Announces what we understand.
///
/// # Errors
/// EINVAL when the kernel does not know one of them.
pub fn set_offloads(fd: BorrowedFd<'_>, offloads: Offloads) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    unsafe { ioctl::tunsetoffload(fd.as_raw_fd(), libc::c_int::from(offloads.bits())) }?;
    Ok(())
}

/// Sets the length of the virtio-net header.
///
/// # Errors
/// EINVAL when it is shorter than the header.
pub fn set_header_len(fd: BorrowedFd<'_>, bytes: u8) -> io::Result<()> {
    let bytes = libc::c_int::from(bytes);
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives on our stack for the whole call.
    unsafe { ioctl::tunsetvnethdrsz(fd.as_raw_fd(), &raw const bytes) }?;
    Ok(())
}

/// The length of the virtio-net header.
///
/// # Errors
/// EBADFD when `fd` is attached to nothing.
pub fn header_len(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TUNGETVNETHDRSZ writes one int, which lives on our stack for the whole call.
    unsafe { ioctl::tungetvnethdrsz(fd.as_raw_fd(), &raw mut bytes) }?;
    usize::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Makes the interface outlive its files, or no longer.
///
/// # Errors
/// EBADFD when `fd` is attached to nothing.
pub fn set_persistent(fd: BorrowedFd<'_>, persistent: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value.
    unsafe { ioctl::tunsetpersist(fd.as_raw_fd(), libc::c_int::from(persistent)) }?;
    Ok(())
}

fn empty_request() -> libc::ifreq {
    // SAFETY: `ifreq` is plain C data (an array of bytes and a union of integers and addresses); all zeroes is a
    // valid value of every member.
    unsafe { std::mem::zeroed() }
}

fn name_of(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> =
        request.ifr_name.iter().map(|c| c.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    //! What the essay claims, asked of the running kernel.

    use super::*;
    use crate::netns::testing::with_tun;
    use nix::errno::Errno;
    use std::os::fd::AsFd;

    const PLAIN: Flags = Flags::TAP.union(Flags::NO_PI);

    fn device() -> OwnedFd {
        open_device(Path::new(DEVICE)).unwrap()
    }

    fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
        Errno::from_raw(result.unwrap_err().raw_os_error().unwrap())
    }

    /// A persistent TAP `name` made with these flags, as `ip tuntap add` leaves it: nobody attached.
    fn persistent(name: &str, flags: Flags) {
        let fd = device();
        attach(fd.as_fd(), name, flags).unwrap();
        set_persistent(fd.as_fd(), true).unwrap();
    }

    #[test]
    fn an_unattached_file_says_so() {
        with_tun("an_unattached_file_says_so", || {
            let fd = device();
            assert!(features(fd.as_fd()).unwrap().contains(PLAIN | Flags::VNET_HDR | Flags::MULTI_QUEUE));
            assert_eq!(errno(attachment(fd.as_fd())), Errno::EBADFD);
            assert_eq!(errno(header_len(fd.as_fd())), Errno::EBADFD);
            assert_eq!(errno(set_offloads(fd.as_fd(), Offloads::CSUM)), Errno::EBADFD);
            assert_eq!(errno(set_header_len(fd.as_fd(), 10)), Errno::EBADFD);
            let null = std::fs::File::open("/dev/null").unwrap();
            assert_eq!(errno(attachment(null.as_fd())), Errno::ENOTTY);
        });
    }

    #[test]
    fn names_are_checked_before_the_kernel_sees_them() {
        with_tun("names_are_checked_before_the_kernel_sees_them", || {
            for name in ["", "sixteen-bytes-xx", "a\0b"] {
                assert_eq!(errno(attach(device().as_fd(), name, PLAIN)), Errno::EINVAL, "{name:?}");
            }
            let fd = device();
            assert_eq!(attach(fd.as_fd(), "fifteen-bytes-x", PLAIN).unwrap(), "fifteen-bytes-x");
            assert_eq!(attachment(fd.as_fd()).unwrap().name, "fifteen-bytes-x");
        });
    }

    #[test]
    fn the_header_is_taken_from_the_attaching_call() {
        with_tun("the_header_is_taken_from_the_attaching_call", || {
            persistent("t0", Flags::TAP);
            let fd = device();
            attach(fd.as_fd(), "t0", PLAIN | Flags::VNET_HDR).unwrap();
            let flags = attachment(fd.as_fd()).unwrap().flags;
            assert!(flags.contains(PLAIN | Flags::VNET_HDR | Flags::PERSIST), "{flags:?}");
        });
    }

    #[test]
    fn the_number_of_queues_is_settled_at_creation() {
        with_tun("the_number_of_queues_is_settled_at_creation", || {
            persistent("one", PLAIN);
            persistent("many", PLAIN | Flags::MULTI_QUEUE);
            assert_eq!(errno(attach(device().as_fd(), "one", PLAIN | Flags::MULTI_QUEUE)), Errno::EINVAL);
            assert_eq!(errno(attach(device().as_fd(), "many", PLAIN)), Errno::EINVAL);
            attach(device().as_fd(), "many", PLAIN | Flags::MULTI_QUEUE).unwrap();
        });
    }

    #[test]
    fn packet_information_is_found_and_no_filter_stays() {
        with_tun("packet_information_is_found_and_no_filter_stays", || {
            for (flags, expected) in [(PLAIN, false), (PLAIN | Flags::VNET_HDR, false), (Flags::TAP, true)] {
                let fd = device();
                attach(fd.as_fd(), "t0", flags).unwrap();
                // The trap: this bit is set whatever was asked for. Asked twice, so no filter has stayed.
                for _ in 0..2 {
                    assert!(attachment(fd.as_fd()).unwrap().flags.contains(Flags::NO_PI));
                    assert_eq!(has_packet_info(fd.as_fd()).unwrap(), expected, "{flags:?}");
                }
            }
            assert_eq!(errno(has_packet_info(device().as_fd())), Errno::EBADFD);
            let tun = device();
            attach(tun.as_fd(), "t1", Flags::TUN | Flags::NO_PI).unwrap();
            assert_eq!(errno(has_packet_info(tun.as_fd())), Errno::EINVAL);
        });
    }

    #[test]
    fn somebody_elses_interface_is_busy() {
        with_tun("somebody_elses_interface_is_busy", || {
            let first = device();
            attach(first.as_fd(), "t0", PLAIN).unwrap();
            assert_eq!(errno(attach(device().as_fd(), "t0", PLAIN)), Errno::EBUSY);
            assert_eq!(errno(attach(device().as_fd(), "lo", PLAIN)), Errno::EINVAL, "no TAP at all");
        });
    }

    #[test]
    fn the_headers_length_belongs_to_the_device() {
        with_tun("the_headers_length_belongs_to_the_device", || {
            persistent("t0", PLAIN);
            let first = device();
            attach(first.as_fd(), "t0", PLAIN | Flags::VNET_HDR).unwrap();
            assert_eq!(header_len(first.as_fd()).unwrap(), 10);
            assert_eq!(errno(set_header_len(first.as_fd(), 9)), Errno::EINVAL);
            set_header_len(first.as_fd(), 12).unwrap();
            drop(first);
            let second = device();
            attach(second.as_fd(), "t0", PLAIN | Flags::VNET_HDR).unwrap();
            assert_eq!(header_len(second.as_fd()).unwrap(), 12, "left over");
        });
    }

    #[test]
    fn every_rung_of_the_ladder_is_known_or_refused() {
        with_tun("every_rung_of_the_ladder_is_known_or_refused", || {
            let fd = device();
            attach(fd.as_fd(), "t0", PLAIN | Flags::VNET_HDR).unwrap();
            let known: Vec<bool> =
                OFFLOAD_LADDER.iter().map(|rung| set_offloads(fd.as_fd(), *rung).is_ok()).collect();
            assert!(known.is_sorted(), "whoever knows much knows less: {known:?}");
            assert_eq!(known.last(), Some(&true));
            // Without checksums the rest makes no sense, and is refused.
            assert_eq!(errno(set_offloads(fd.as_fd(), Offloads::TSO4)), Errno::EINVAL);
            if known.first() == Some(&true) {
                for half in [Offloads::USO4, Offloads::USO6] {
                    assert_eq!(
                        errno(set_offloads(fd.as_fd(), Offloads::CSUM | half)),
                        Errno::EINVAL,
                        "{half:?}"
                    );
                }
            }
        });
    }
}
