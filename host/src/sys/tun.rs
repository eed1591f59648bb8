//! `/dev/net/tun`: the ioctls that turn an open file into a TAP, and those that tell what it can do.
//!
//! Sources: Linux `Documentation/networking/tuntap.rst`, `include/uapi/linux/if_tun.h`, `drivers/net/tun.c`.
//! What the code leans on (each has a test at the end of this file or in `device/tap.rs`):
//!
//! * TUNSETIFF attaches to a persistent interface of that name if there is one. IFF_VNET_HDR and IFF_NO_PI are
//!   taken from the attaching call; IFF_MULTI_QUEUE has to be what it was at creation (else EINVAL).
//! * The length of the virtio-net header belongs to the *device*, so one that another program left at 12 is set
//!   back to 10.
//! * TUNSETOFFLOAD tells what **we** understand, for frames from the guest. It too belongs to the device.
//!   TUN_F_USO4 and TUN_F_USO6 exist since Linux 6.2 and only as a pair; older kernels answer EINVAL.
//! * What we may *send* needs no announcement: with the header the kernel takes any kind of train that it knows.

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

mod ioctl {
    use nix::libc;
    nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(tungetiff, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_read_bad!(tungetfeatures, libc::TUNGETFEATURES, libc::c_uint);
    nix::ioctl_write_int_bad!(tunsetoffload, libc::TUNSETOFFLOAD);
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

/// The flags that the driver knows.
///
/// # Errors
/// ENOTTY when `fd` is no TUN/TAP file.
pub fn features(fd: BorrowedFd<'_>) -> io::Result<Flags> {
    let mut bits: libc::c_uint = 0;
    // SAFETY: TUNGETFEATURES writes one unsigned int, which lives on our stack for the whole call.
    unsafe { ioctl::tungetfeatures(fd.as_raw_fd(), &raw mut bits) }?;
    Ok(Flags::from_bits_retain(u16::try_from(bits & 0xffff).unwrap_or_default()))
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
