//! The flags of `gvforwarder`, and what was typed.
//!
//! Nothing is checked here beyond what a flag's kind says: an address or a MAC address that makes no sense is told when
//! it is used, and tried again, as by the original.

use crate::flags::{self, Flag, Kind, Stop, Value};
use std::ffi::OsString;

/// A flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Url,
    Iface,
    StopIfExist,
    Mac,
    Mtu,
    Preexisting,
    Debug,
    Version,
}

const URL: &str = "vsock://2:1024/connect";
const IFACE: &str = "tap0";
const STOP_IF_EXIST: &str = "eth0,ens3,enp0s1";
const MAC: &str = "5a:94:ef:e4:0c:ee";
const MTU: i64 = 4000;

/// All flags.
pub(crate) const FLAGS: &[Flag<Key>] = &[
    Flag::new(Key::Url, "url", Kind::Text(URL), "where gvproxy is (vsock://, unix://, stdio:)"),
    Flag::new(Key::Iface, "iface", Kind::Text(IFACE), "the interface that is made, or attached to"),
    Flag::new(
        Key::StopIfExist,
        "stop-if-exist",
        Kind::Text(STOP_IF_EXIST),
        "end at once if there is one of these interfaces",
    ),
    Flag::new(Key::Mac, "mac", Kind::Text(MAC), "MAC address of the interface; if empty, whatever it is")
        .more("The default is the address for which gvproxy keeps 192.168.127.2, where its -ssh-port leads."),
    Flag::new(Key::Mtu, "mtu", Kind::Number(MTU), "taken, and of no effect")
        .more("Frames of any size are carried; the interface's MTU is what the DHCP server says."),
    Flag::new(
        Key::Preexisting,
        "preexisting",
        Kind::Truth,
        "the interface is there, and somebody else sets it up",
    )
    .more("Neither its MAC address nor its state is touched, and no address is asked for."),
    Flag::new(Key::Debug, "debug", Kind::Truth, "log everything"),
    Flag::new(Key::Version, "version", Kind::Truth, "print the version"),
];

/// What was typed, or else holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) url: String,
    pub(crate) iface: String,
    pub(crate) stop_if_exist: String,
    /// Empty: it is left alone.
    pub(crate) mac: String,
    pub(crate) preexisting: bool,
    pub(crate) debug: bool,
    pub(crate) version: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            url: URL.to_owned(),
            iface: IFACE.to_owned(),
            stop_if_exist: STOP_IF_EXIST.to_owned(),
            mac: MAC.to_owned(),
            preexisting: false,
            debug: false,
            version: false,
        }
    }
}

impl Args {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// See [`Stop`].
    pub(crate) fn parse(words: &[OsString]) -> Result<Self, Stop> {
        let mut args = Self::default();
        flags::parse(FLAGS, words, |key, value| args.set(key, value))?;
        Ok(args)
    }

    fn set(&mut self, key: Key, value: Value) {
        match (key, value) {
            (Key::Url, Value::Text(text)) => self.url = text,
            (Key::Iface, Value::Text(text)) => self.iface = text,
            (Key::StopIfExist, Value::Text(text)) => self.stop_if_exist = text,
            (Key::Mac, Value::Text(text)) => self.mac = text,
            (Key::Preexisting, Value::Truth(truth)) => self.preexisting = truth,
            (Key::Debug, Value::Truth(truth)) => self.debug = truth,
            (Key::Version, Value::Truth(truth)) => self.version = truth,
            // -mtu is the one with a number.
            (_, _) => {}
        }
    }

    /// The interface of these names (of a machine's) that keeps the program from running.
    pub(crate) fn prevented_by<'a>(&self, interfaces: &'a [String]) -> Option<&'a str> {
        let wanted = |name: &&String| self.stop_if_exist.split(',').any(|stop| stop == name.as_str());
        interfaces.iter().find(wanted).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Args {
        let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        Args::parse(&words).unwrap()
    }

    #[test]
    fn the_command_lines_of_podman_are_read() {
        let hyperv = parsed("-preexisting -iface vsock0 -url vsock://2:1025/connect");
        let expected = Args {
            preexisting: true,
            iface: "vsock0".into(),
            url: "vsock://2:1025/connect".into(),
            ..Args::default()
        };
        assert_eq!(hyperv, expected);
        let wsl = parsed(
            "-iface podman-usermode -stop-if-exist ignore -url stdio:/x?listen-stdio=accept&ssh-port=-1",
        );
        assert_eq!((wsl.iface.as_str(), wsl.stop_if_exist.as_str()), ("podman-usermode", "ignore"));
        assert_eq!(parsed("-mac= -mtu 1500 --debug").mac, "");
    }

    #[test]
    fn an_interface_of_that_name_prevents_it() {
        let there = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let args = Args::default();
        assert_eq!(args.prevented_by(&there(&["lo", "ens3", "eth0"])), Some("ens3"));
        assert_eq!(args.prevented_by(&there(&["lo", "eth1", "tap0"])), None);
        let none = Args { stop_if_exist: String::new(), ..Args::default() };
        assert_eq!(none.prevented_by(&there(&["lo", "eth0"])), None);
    }
}
