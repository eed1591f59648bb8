//! The drop-in commands.
