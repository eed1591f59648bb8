//! The Linux shell.

pub mod clock;
pub mod device;
pub mod driver;
pub mod epoll;
pub mod netlink;
pub mod netns;
pub mod random;
pub mod sys;
pub mod token;
pub mod upstream;
