//! The Linux shell.

pub mod device;
pub mod netlink;
pub mod netns;
pub mod sys;
