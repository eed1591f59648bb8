//! The messages between the set-up and the DHCP proxy: gRPC over a Unix socket, by contract.
//!
//! Written by `cargo xtask proto` from `proto/netavark_proxy.proto`; not to be edited.

// As it was generated, so that it can be compared.
#[rustfmt::skip]
#[expect(unused_qualifications, reason = "the generator names everything in full")]
pub mod netavark_proxy;

pub use netavark_proxy::netavark_proxy_client::NetavarkProxyClient;
pub use netavark_proxy::netavark_proxy_server::{NetavarkProxy, NetavarkProxyServer};
pub use netavark_proxy::{Empty, Lease, NetworkConfig, OperationResponse, Version};
