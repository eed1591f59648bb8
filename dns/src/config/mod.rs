//! The texts that say what to serve: files of other programs, read into valid types once.

pub mod aardvark;
pub mod gvproxy;
pub mod resolv_conf;
