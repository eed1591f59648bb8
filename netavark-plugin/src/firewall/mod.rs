//! Firewall rules for bridge networks and published ports.
