//! Container network set-up: bridges, addresses, firewall rules.

#![forbid(unsafe_code)]
