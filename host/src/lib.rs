//! The Linux shell: every system call and every unsafe block around the pure engine of `netstack`.
//!
//! ```text
//!   sandbox, netns, netlink            once, at the start
//!        │ a link's descriptor
//!        ▼
//!   device ◀──────▶ driver ◀──────▶ upstream        for ever after, in one thread
//!   (frames)     (epoll, engine)    (sockets)
//! ```
//! Start-up goes in this order: enter or make the namespaces and fetch the link's descriptor ([`netns`], [`netlink`]),
//! open the link ([`device`]), bind listeners, drop privileges, then give engine and link to a
//! [`driver::Driver`] and call its `turn` until the end. [`sys`] alone may hold unsafe code.

pub mod activation;
pub mod busy_poll;
pub mod clock;
pub mod device;
pub mod dhcp_filter;
pub mod driver;
pub mod environment;
pub mod epoll;
#[cfg(test)]
mod families;
pub mod files;
pub mod fuzz;
pub mod inside;
pub mod logging;
mod moderation;
pub mod netlink;
pub mod netns;
pub mod port_set;
pub mod ports;
pub mod random;
pub mod resolv_conf;
pub mod sandbox;
pub mod scope;
pub mod signals;
pub mod splice;
pub mod strerror;
pub mod sys;
pub mod template;
pub mod token;
mod trim;
pub mod upstream;
pub mod user;
