//! Record types and response codes, with the names that people know.

use core::fmt;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType as HickoryType;

/// A record type by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordType(pub u16);

impl RecordType {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// The start of authority; in a negative answer it says how long that holds.
    pub const SOA: Self = Self(6);
    /// A name for an address.
    pub const PTR: Self = Self(12);
    /// An IPv6 address.
    pub const AAAA: Self = Self(28);
    /// The pseudo-record of EDNS.
    pub const OPT: Self = Self(41);
    /// What has changed in a zone (RFC 1995).
    pub const IXFR: Self = Self(251);
    /// A whole zone (RFC 5936).
    pub const AXFR: Self = Self(252);
    /// All that there is of a name.
    pub const ANY: Self = Self(255);

    /// Whether it is one to ask with, and not one that a record has (RFC 6895 §3.1).
    #[must_use]
    pub const fn is_meta(self) -> bool {
        matches!(self.0, 128..=255)
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match HickoryType::from(self.0) {
            HickoryType::Unknown(code) => write!(f, "TYPE{code}"), // RFC 3597 §5
            known => write!(f, "{known}"),
        }
    }
}

/// A response code as the header holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u8);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The query could not be read.
    pub const FORMERR: Self = Self(1);
    /// The server could not answer.
    pub const SERVFAIL: Self = Self(2);
    /// There is no such name.
    pub const NXDOMAIN: Self = Self(3);
    /// The server does not do that.
    pub const NOTIMP: Self = Self(4);
    /// The server does not want to.
    pub const REFUSED: Self = Self(5);
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ResponseCode::from(0, self.0) {
            ResponseCode::NoError => f.write_str("NOERROR"),
            ResponseCode::FormErr => f.write_str("FORMERR"),
            ResponseCode::ServFail => f.write_str("SERVFAIL"),
            ResponseCode::NXDomain => f.write_str("NXDOMAIN"),
            ResponseCode::NotImp => f.write_str("NOTIMP"),
            ResponseCode::Refused => f.write_str("REFUSED"),
            _ => write!(f, "RCODE{}", self.0),
        }
    }
}
