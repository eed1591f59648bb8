//! The Linux shell.
