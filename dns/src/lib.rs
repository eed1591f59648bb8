//! Names for containers and guests.

#![forbid(unsafe_code)]
