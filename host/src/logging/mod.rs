//! Where log lines go, for programs that choose what is a line and which of them matter.
//!
//! The `log` facade is global; its backend is the business of each program. What backends share is here: [`limit`], a
//! bound on how much is written, because much of what is worth a line can be caused by a stranger; [`stream`], standard
//! error without waiting for its reader; [`syslog`], the system's log; and [`ring`], a file that forgets its oldest
//! lines.

pub mod limit;
pub mod ring;
pub mod stream;
pub mod syslog;
