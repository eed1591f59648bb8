//! The words between the two processes.

use super::stats::Stats;
use serde::{Deserialize, Serialize};
use slipway_dns::config::gvproxy::{Record, Zone};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// From the control process: an order, and the number that its reply will have.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Counted by whoever asks.
    pub number: u64,
    /// What is to be done.
    pub order: Order,
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// A port of the host is to lead into the network. Answered by [`Reply::Done`].
    Expose(Forward),
    /// It leads there no more. Answered by [`Reply::Done`].
    Unexpose {
        /// `tcp` or `udp`.
        protocol: String,
        /// As it was given.
        local: String,
    },
    /// Which ports do. Answered by [`Reply::Forwards`].
    Forwards,
    /// Names, in front of those that the zone has. Answered by [`Reply::Done`].
    AddZone(#[serde(with = "ZoneText")] Zone),
    /// Who has which address. Answered by [`Reply::Leases`].
    Leases,
    /// An address is kept for a station from now on. Answered by [`Reply::Done`].
    Keep {
        /// The address.
        ip: Ipv4Addr,
        /// The station's MAC address.
        mac: String,
    },
    /// Who has been seen where. Answered by [`Reply::Stations`].
    Stations,
    /// Answered by [`Reply::Stats`].
    Stats,
    /// The descriptor that comes along is a guest's link from here on. Answered by [`Reply::Done`].
    Join {
        /// What it has sent already.
        #[serde(with = "hex")]
        first: Vec<u8>,
        /// Whether it offers the fast link.
        fast: bool,
    },
    /// The descriptor that comes along is a guest's own socket of packets or datagrams. Answered by [`Reply::Done`].
    Adopt,
    /// A connection to a guest. Answered by [`Reply::Dialled`] with our end of it, which the engine has begun to carry.
    Dial(SocketAddr),
    /// Whether the guest has answered that has been dialled under this number. Answered by [`Reply::Open`].
    IsOpen(u64),
}

/// A port of the host and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Where it listens, as it was given.
    pub local: String,
    /// Where it leads, likewise.
    pub remote: String,
    /// `tcp`, `udp`; `unix` ones are the control process's own.
    pub protocol: String,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It was carried out.
    Done,
    /// It was not, for this reason.
    Failed(String),
    /// Ports, in order of their names.
    Forwards(Vec<Forward>),
    /// Addresses, in their order, and MAC addresses.
    Leases(Vec<(IpAddr, String)>),
    /// MAC addresses, and numbers of links.
    Stations(Vec<(String, u64)>),
    /// Counters.
    Stats(Box<Stats>),
    /// A connection has this number.
    Dialled(u64),
    /// Whether both its ends are there.
    Open(bool),
}

/// To the control process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// What came of an order.
    Reply {
        /// Its number.
        number: u64,
        /// The outcome.
        reply: Reply,
    },
    /// The descriptor that comes along listens for clients of the API.
    Listen {
        /// What they may ask for.
        door: Door,
        /// Its file, which goes when this network ends.
        file: Option<PathBuf>,
    },
    /// The descriptor that comes along listens for clients of a guest's socket: that of the forward with this number in
    /// the configuration.
    Forward {
        /// Counted from 0.
        at: usize,
        /// Its file, which goes when this network ends.
        file: PathBuf,
    },
    /// The descriptor that comes along is a connection of this guest to the gateway's port 80.
    Client(SocketAddr),
    /// Somebody may want to hear of it.
    News(News),
}

/// Where a client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Door {
    /// `-listen`: everything.
    Whole,
    /// `-services`: no guest's link.
    Services,
    /// `-listen-fd`: guests' descriptors, and nothing else.
    Descriptors,
    /// The gateway's port 80: what guests may do.
    Inside,
}

/// What is told by `-notification`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// The network is there.
    Ready,
    /// A station has sent its first frame.
    Joined(String),
    /// Its link has gone.
    Left(String),
    /// Guests cannot come in any more, or one was lost.
    Failed,
}

/// A zone in a message; the type itself knows nothing of messages.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Zone")]
struct ZoneText {
    name: String,
    #[serde(with = "records")]
    records: Vec<Record>,
    default_ip: Option<IpAddr>,
}

mod records {
    use super::{IpAddr, Record};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Row = (String, Option<IpAddr>, Option<String>);

    pub(super) fn serialize<S: Serializer>(records: &[Record], to: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<_> = records.iter().map(|record| (&record.name, record.ip, &record.regexp)).collect();
        rows.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Record>, D::Error> {
        let rows = Vec::<Row>::deserialize(from)?;
        Ok(rows.into_iter().map(|(name, ip, regexp)| Record { name, ip, regexp }).collect())
    }
}

/// Bytes as digits: an array of numbers would be twice as long.
mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::fmt::Write as _;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // A string takes everything.
            let _ = write!(text, "{byte:02x}");
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
        bytes.filter(|_| rest.is_empty()).ok_or_else(|| D::Error::custom("not a row of bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_go_both_ways() {
        let forward =
            Forward { local: ":80".into(), remote: "192.168.127.2:80".into(), protocol: "tcp".into() };
        let record = |name: &str, ip: &str, regexp: Option<&str>| Record {
            name: name.into(),
            ip: ip.parse().ok(),
            regexp: regexp.map(Into::into),
        };
        let zone = Zone {
            name: "x.".into(),
            records: vec![record("a", "10.0.0.1", None), record("", "", Some(".*"))],
            default_ip: "fd00::1".parse().ok(),
        };
        for order in [
            Order::Expose(forward.clone()),
            Order::Unexpose { protocol: forward.protocol, local: forward.local },
            Order::Forwards,
            Order::AddZone(zone),
            Order::AddZone(Zone::default()),
            Order::Leases,
            Order::Keep { ip: Ipv4Addr::new(10, 0, 0, 7), mac: "02:00:00:00:00:07".into() },
            Order::Stations,
            Order::Stats,
            Order::Join { first: vec![0, 0x7f, 0xff], fast: true },
            Order::Join { first: Vec::new(), fast: false },
            Order::Adopt,
            Order::Dial("192.168.127.2:22".parse().unwrap()),
            Order::IsOpen(7 << 32),
        ] {
            let text = serde_json::to_string(&Request { number: 7, order: order.clone() }).unwrap();
            let read: Request = serde_json::from_str(&text).unwrap();
            assert_eq!((read.number, read.order), (7, order), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_none_are_refused() {
        for text in ["0", "0g", "+1", "é0"] {
            let order = format!(r#"{{"Join":{{"first":"{text}","fast":false}}}}"#);
            assert!(serde_json::from_str::<Order>(&order).is_err(), "{text}");
        }
    }
}
