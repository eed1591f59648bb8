//! Stage 1 of the data path: the guest's link as the engine sees it.
//!
//! Frames come in through [`crate::Engine::on_frame`] and leave through [`Device::transmit`]. Beside the bytes
//! travels an [`Offload`]: what the sender left for the receiver to do, in the terms of the virtio-net header.
//! A TAP without that header, a VM's socket or the simulator simply always say [`Offload::NONE`], and their
//! [`Capabilities`] make the engine segment and checksum in software.

pub mod segment;
pub mod stations;
pub mod switch;
pub mod vnet;

pub use stations::Stations;
pub use switch::Switch;
pub use vnet::{Gso, Offload};

use crate::addr::MacAddr;

/// What the device takes off our hands for frames **towards the guest**.
///
/// In the other direction nothing has to be announced: the engine understands every offload it may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// It takes frames whose TCP or UDP checksum is only partial (VIRTIO_NET_HDR_F_NEEDS_CSUM).
    pub checksum: bool,
    /// It takes TCP super-segments over IPv4 up to 64 KiB. Implies `checksum`.
    pub tso4: bool,
    /// The same over IPv6. Implies `checksum`.
    pub tso6: bool,
    /// It takes UDP trains up to 64 KiB (VIRTIO_NET_HDR_GSO_UDP_L4), both families. Implies `checksum`.
    pub uso: bool,
}

impl Capabilities {
    /// All there is.
    pub const ALL: Self = Self { checksum: true, tso4: true, tso6: true, uso: true };

    /// What either can do.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            checksum: self.checksum || other.checksum,
            tso4: self.tso4 || other.tso4,
            tso6: self.tso6 || other.tso6,
            uso: self.uso || other.uso,
        }
    }

    /// Whether there is anything here that a device with `other` cannot do.
    #[must_use]
    pub const fn exceed(self, other: Self) -> bool {
        (self.checksum && !other.checksum)
            || (self.tso4 && !other.tso4)
            || (self.tso6 && !other.tso6)
            || (self.uso && !other.uso)
    }
}

/// Where frames to the guest go.
pub trait Device {
    /// Sends one frame, Ethernet header first, without frame check sequence. A frame is taken whole or not at all.
    ///
    /// # Errors
    /// [`Full`] when the device cannot take it now but will be able to: it was not sent. The engine then sends nothing
    /// more until the caller, who knows when there is room again, drains it the next time
    /// ([`crate::Engine::awaits_link`]). What can be taken from a host socket again is kept there; the rest is lost, as
    /// on any link. A frame that the device will never take is no case of this: it is lost, and the device counts it.
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full>;

    /// After [`Full`]: whether there is room for nobody. If not, there is none for the station that the frame was for;
    /// what leads to others goes on.
    fn is_full(&self) -> bool {
        true
    }

    /// Whether a station that there was no room for alone may have some by now. Asked once for each drain while
    /// anything waits for it.
    fn may_have_room(&self, _station: MacAddr) -> bool {
        true
    }

    /// The last frame of a [`crate::Engine::drain`] has been given: what the device still has of frames that it took is
    /// to leave.
    fn flush(&mut self) {}
}

/// The device has no room for a frame now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;
