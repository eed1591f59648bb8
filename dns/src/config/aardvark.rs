//! A network's file, as netavark writes it below its run directory for aardvark-dns.
//!
//! ```text
//! 10.89.0.1,fd00::1[ 198.51.100.53[,..]]          where to listen, and the network's DNS servers
//! <id> <ipv4,..> <ipv6,..> <name,..>[ <server,..>] one container a line; the address lists may be empty
//! ```
//!
//! Fields are separated by exactly one space, so an empty list shows as two spaces in a row. The name of the file is
//! that of the network; `%int` behind it marks an internal one. Names are lower-cased. The servers of a container count
//! only when the line has exactly five fields.
//!
//! A file is good or bad as a whole: another program may be writing it at this moment, and half a file names half the
//! containers. A header without an address is skipped like any empty line and makes the first container the header,
//! which is then an error; that is how the format is.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// What marks the file of an internal network.
pub const INTERNAL_SUFFIX: &str = "%int";
/// The file in the same directory that is not a network.
pub const PID_FILE: &str = "aardvark.pid";
/// Much longer than any network's file can be; a longer one is not read.
pub const MAX_BYTES: usize = 64 << 20;
/// What is repeated of a wrong text.
const SHOWN: usize = 100;

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFile {
    /// Its name, without the suffix of internal ones.
    pub name: String,
    /// It has no way out, so its questions have none either.
    pub internal: bool,
    /// Addresses to serve it on.
    pub listen: Vec<IpAddr>,
    /// Its own DNS servers.
    pub servers: Vec<IpAddr>,
    /// Those who live on it.
    pub containers: Vec<Container>,
}

/// A container on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id, lower-cased. The same on all its networks.
    pub id: String,
    /// Its IPv4 addresses on this network.
    pub v4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses on this network.
    pub v6: Vec<Ipv6Addr>,
    /// Its name and aliases, lower-cased.
    pub names: Vec<String>,
    /// Its own DNS servers.
    pub servers: Option<Vec<IpAddr>>,
}

/// What is wrong with a file. Line numbers start at 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes that are no text.
    #[error("not UTF-8 text")]
    NotText,
    /// Larger than a network can be.
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    /// An address that is none.
    #[error("line {line}: error parsing {what} {text:?}")]
    Address {
        /// Which line.
        line: usize,
        /// What it should be.
        what: &'static str,
        /// What stands there, shortened.
        text: String,
    },
    /// A line that is not one of a container.
    #[error("line {line}: improperly formatted - too few entries: {text:?}")]
    TooFewFields {
        /// Which line.
        line: usize,
        /// What stands there, shortened.
        text: String,
    },
    /// No header.
    #[error("does not provide any bind addresses")]
    NoListenAddress,
}

/// Reads the file called `file_name`.
///
/// # Errors
/// The whole file is not to be used.
pub fn parse(file_name: &str, content: &[u8]) -> Result<NetworkFile, Error> {
    if content.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    let text = core::str::from_utf8(content).map_err(|_| Error::NotText)?;
    let internal = file_name.strip_suffix(INTERNAL_SUFFIX);
    let mut lines = (1..).zip(text.split('\n')).filter(|(_, line)| !line.is_empty());
    let (number, header) = lines.next().ok_or(Error::NoListenAddress)?;
    let mut fields = header.split(' ');
    let listen = addresses(number, "ip address", fields.next().unwrap_or_default())?;
    let servers = match fields.next() {
        Some(list) => addresses(number, "network dns address", list)?,
        None => Vec::new(),
    };
    let containers = lines.map(|(number, line)| container(number, line)).collect::<Result<_, _>>()?;
    Ok(NetworkFile {
        name: internal.unwrap_or(file_name).to_owned(),
        internal: internal.is_some(),
        listen,
        servers,
        containers,
    })
}

fn container(number: usize, line: &str) -> Result<Container, Error> {
    let mut fields = line.split(' ');
    let mut field = || fields.next();
    let (Some(id), Some(v4), Some(v6), Some(names)) = (field(), field(), field(), field()) else {
        return Err(Error::TooFewFields { line: number, text: shown(line) });
    };
    let servers = match (field(), field()) {
        (Some(list), None) if !list.is_empty() => Some(addresses(number, "DNS server address", list)?),
        _ => None,
    };
    Ok(Container {
        id: id.to_lowercase(),
        v4: optional(number, v4)?,
        v6: optional(number, v6)?,
        names: names.split(',').map(str::to_lowercase).collect(),
        servers,
    })
}

/// A list that may be empty.
fn optional<T: FromStr>(line: usize, list: &str) -> Result<Vec<T>, Error> {
    if list.is_empty() { Ok(Vec::new()) } else { addresses(line, "IP address", list) }
}

fn addresses<T: FromStr>(line: usize, what: &'static str, list: &str) -> Result<Vec<T>, Error> {
    let wrong = |text| Error::Address { line, what, text: shown(text) };
    list.split(',').map(|text| text.parse().map_err(|_| wrong(text))).collect()
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<NetworkFile, Error> {
        parse("podman1", text.as_bytes())
    }

    #[test]
    fn a_network() {
        let text = "10.89.0.1,fd00::1 198.51.100.1,2001:db8::53\n\nABC 10.89.0.2,10.89.0.3 fd00::2 Web,Alias 192.0.2.1\ndef 10.89.0.4  db\n";
        let network = parse("my.net%int", text.as_bytes()).unwrap();
        assert_eq!((network.name.as_str(), network.internal), ("my.net", true));
        assert_eq!(network.listen, ["10.89.0.1", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!(network.servers.len(), 2);
        let [first, second] = &network.containers[..] else { panic!("{network:?}") };
        assert_eq!((first.id.as_str(), first.v4.len(), first.v6.len()), ("abc", 2, 1));
        assert_eq!(first.names, ["web", "alias"]);
        assert_eq!(first.servers.as_ref().map(Vec::len), Some(1));
        assert_eq!((second.v6.len(), &second.servers), (0, &None));
    }

    #[test]
    fn servers_count_in_exactly_five_fields() {
        let servers =
            |line: &str| read(&format!("10.0.0.1\n{line}\n")).map(|n| n.containers[0].servers.clone());
        assert_eq!(servers("c 10.0.0.2  n 192.0.2.1 more"), Ok(None));
        assert_eq!(servers("c 10.0.0.2  n "), Ok(None));
        assert_eq!(servers("c 10.0.0.2  n nonsense more"), Ok(None));
        assert!(servers("c 10.0.0.2  n nonsense").is_err());
    }

    #[test]
    fn bad_files_are_bad_as_a_whole() {
        for (text, message) in [
            ("", "does not provide any bind addresses"),
            ("\n\n", "does not provide any bind addresses"),
            ("not-an-ip\n", "line 1: error parsing ip address \"not-an-ip\""),
            (" 192.0.2.1\n", "line 1: error parsing ip address \"\""),
            ("10.0.0.1 \n", "line 1: error parsing network dns address \"\""),
            ("10.0.0.1,\n", "line 1: error parsing ip address \"\""),
            ("10.0.0.1\r\n", "line 1: error parsing ip address \"10.0.0.1\\r\""),
            (
                "10.0.0.1\nabc 10.0.0.2 \n",
                "line 2: improperly formatted - too few entries: \"abc 10.0.0.2 \"",
            ),
            ("10.0.0.1\nc fd00::1  n\n", "line 2: error parsing IP address \"fd00::1\""),
            ("10.0.0.1\nc  10.0.0.2 n\n", "line 2: error parsing IP address \"10.0.0.2\""),
            // No gateway: the first container is taken for the header.
            ("\nabc 10.0.0.2  n\n", "line 2: error parsing ip address \"abc\""),
        ] {
            assert_eq!(read(text).map_err(|error| error.to_string()), Err(message.to_owned()), "{text:?}");
        }
        assert_eq!(parse("n", b"10.0.0.1\xff"), Err(Error::NotText));
        let long = format!("{}\n", "x".repeat(10_000));
        assert!(read(&long).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn a_file_cut_off_anywhere_is_read_or_refused() {
        let text = "10.89.0.1 192.0.2.1\nabc 10.89.0.2 fd00::2 web,alias 192.0.2.2\ndef 10.89.0.3  db\n";
        for len in 0..text.len() {
            let _ = read(&text[..len]);
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "[0-9a-f.:, \n%]{0,200}") {
            let _ = read(&text);
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse("net", &bytes);
        }
    }
}
