//! Addresses from a DHCP server of the network itself, for macvlan and for bridges that others manage.
//!
//! A lease must be renewed as long as the container lives, but the set-up ends at once. So a *proxy* holds the leases: the
//! set-up asks it over a Unix socket ([`client`]).

pub mod client;
