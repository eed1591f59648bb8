//! The one door through which a flow of the guest gets its destination: TCP, UDP and echo ask here, and nowhere else is
//! decided what may leave. What an address stands for is in the plan ([`crate::ip::plan`]); here the guest is told when
//! it leads nowhere.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::drop_reason::DropReason;
use crate::engine::Engine;
use crate::headers::{PROTO_TCP, PROTO_UDP};
use crate::ip::Packet;
use crate::ip::plan::Route;
use crate::ip::problem::Problem;
use crate::upstream::ServiceId;
use core::net::SocketAddr;

/// Where a flow that the guest begins leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead {
    /// To this endpoint on the host's side.
    Upstream(SocketAddr),
    /// To everybody who listens there.
    Members(SocketAddr),
    /// To the host's nameservers.
    Dns,
    /// A connection to a service of this process.
    Service(ServiceId),
    /// To a port of ours that nobody serves: each transport has a way of its own to say so.
    Closed,
}

impl Engine {
    /// Where a flow to `dst` leads that `packet` begins. This is the one door: what may not go there is told here why,
    /// if it is to be told.
    ///
    /// # Errors
    /// It leads nowhere; the guest has been answered.
    pub(crate) fn lead(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        dst: SocketAddr,
    ) -> Result<Lead, DropReason> {
        let plan = &self.config.plan;
        if !plan.carries.protocol(packet.protocol) {
            return Err(DropReason::Forbidden);
        }
        match plan.outbound(dst) {
            Route::Upstream(ip) => Ok(Lead::Upstream(SocketAddr::new(ip, dst.port()))),
            Route::Members(ip) if packet.protocol == PROTO_UDP => {
                Ok(Lead::Members(SocketAddr::new(ip, dst.port())))
            }
            Route::Dns => Ok(Lead::Dns),
            Route::Service(id) if packet.protocol == PROTO_TCP => Ok(Lead::Service(id)),
            Route::Closed | Route::Service(_) => Ok(Lead::Closed),
            Route::Blocked if packet.protocol == PROTO_TCP => Ok(Lead::Closed),
            Route::Blocked => Err(DropReason::Forbidden),
            Route::Forbidden => {
                self.icmp_error(now, mac, packet.whole, Problem::NetUnreachable);
                Err(DropReason::Forbidden)
            }
            Route::Members(_) | Route::Group => Err(DropReason::Multicast),
            Route::Nobody => Err(DropReason::NoSuchHost),
        }
    }
}
