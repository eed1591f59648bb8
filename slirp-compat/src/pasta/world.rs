//! The real system, for the checks of a command line.

use super::config::{Ids, World};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::unistd::{Group, User};
use slipway_host::ports::ephemeral_range;
use slipway_host::scope::Zone;
use slipway_host::user;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

/// This machine.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl World for System {
    fn interface(&self, name: &OsStr) -> Result<(), Errno> {
        if_nametoindex(name).map(drop)
    }

    fn family(&self, ipv6: bool) -> bool {
        // A socket is enough: an address that leads somewhere may come later.
        let any = if ipv6 {
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
        } else {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        };
        any.is_ok()
    }

    fn user(&self, name: &str) -> Option<Ids> {
        let user = User::from_name(name).ok()??;
        Some(Ids { user: user.uid.as_raw(), group: user.gid.as_raw() })
    }

    fn group(&self, name: &str) -> Option<u32> {
        Some(Group::from_name(name).ok()??.gid.as_raw())
    }

    fn is_root_of_the_machine(&self) -> bool {
        user::is_root_of_the_machine()
    }

    fn binds_to_interfaces(&self) -> bool {
        Zone::new("lo").is_some_and(|lo| lo.index().is_ok())
    }

    fn ephemeral(&self) -> (u16, u16) {
        ephemeral_range()
    }
}
