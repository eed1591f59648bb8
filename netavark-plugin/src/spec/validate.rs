//! Texts of the request made into values, with the contracted words when they cannot be.

use super::{Compat, Map};
use crate::error::{Error, Result};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use slipway_netstack::addr::MacAddr;
use std::fmt::Display;
use std::str::FromStr;

/// The highest VLAN number that is accepted.
pub const VLAN_MAX: u16 = 4094;

/// The option `key`, parsed; `None` when it is not there.
///
/// # Errors
/// `unable to parse "<key>": ...`
pub fn option<T>(options: Option<&Map<String>>, key: &str) -> Result<Option<T>>
where
    T: FromStr<Err: Display>,
{
    let Some(text) = options.and_then(|options| options.get(key)) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| Error::msg(format!("unable to parse \"{key}\": {error}")))
}

/// The option `vlan`.
///
/// # Errors
/// When it is no number, or none from 0 to 4094.
pub fn vlan(options: Option<&Map<String>>) -> Result<Option<u16>> {
    match option(options, "vlan")? {
        Some(vlan) if vlan > VLAN_MAX => Err(Error::msg("vlan must be between 0 and 4094")),
        vlan => Ok(vlan),
    }
}

/// A name of an interface; `what` says whose. The kernel refuses most that is wrong with it, but not this: a `/` or
/// dots make another path of it, and in the place of a `%d` the kernel puts a number, under which nobody would find the
/// interface again.
///
/// # Errors
/// `invalid ... interface name "..."`
pub fn interface<'a>(what: &str, name: &'a str) -> Result<&'a str> {
    if name.contains(['/', '%']) || [".", ".."].contains(&name) {
        return Err(Error::msg(format!("invalid {what} interface name \"{name}\"")));
    }
    Ok(name)
}

/// A MAC address: six bytes in hexadecimal, with colons or hyphens between them.
///
/// # Errors
/// When it is not that.
pub fn mac(text: &str) -> Result<MacAddr> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .map_err(|error| Error::msg(format!("unable to parse mac address {text}: {error}")))?;
    let bytes =
        bytes.try_into().map_err(|_| Error::msg(format!("invalid mac length for address: {text}")))?;
    Ok(MacAddr(bytes))
}

/// How far a bridge network is closed towards other bridge networks.
///
/// The names of the variants are what the firewall's state files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum Isolation {
    /// Towards all others.
    Strict,
    /// Towards others that are isolated.
    Normal,
    /// Not at all.
    Never,
}

impl Isolation {
    /// What the option `isolate` means; without it, the generation's default.
    ///
    /// # Errors
    /// On a word that the 2.x contract does not know. The 1.x contract took it as `false`.
    pub fn from_option(text: Option<&str>, compat: Compat) -> Result<Self> {
        match (text, compat) {
            (Some("true"), _) => Ok(Self::Normal),
            (Some("strict"), _) | (None, Compat::Two) => Ok(Self::Strict),
            (Some("false"), _) | (_, Compat::One) => Ok(Self::Never),
            (Some(other), Compat::Two) => Err(Error::msg(format!("invalid isolate option \"{other}\""))),
        }
    }
}

/// Refuses subnets that are the same or that contain each other.
///
/// # Errors
/// With the first pair that was found.
pub fn distinct<'a>(subnets: impl IntoIterator<Item = &'a IpNet>) -> Result<()> {
    let mut seen: Vec<IpNet> = Vec::new();
    for &subnet in subnets {
        let net = subnet.trunc();
        for earlier in &seen {
            if *earlier == net {
                return Err(Error::msg(format!("duplicate subnet defined: {net}")));
            }
            if overlap(earlier, &net) {
                return Err(Error::msg(format!("overlapping subnets: {earlier} and {net}")));
            }
        }
        seen.push(net);
    }
    Ok(())
}

/// Whether two subnets have an address in common.
#[must_use]
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Map<String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_parsed_or_named() {
        let map = options(&[("mtu", "1400"), ("metric", "x"), ("vlan", "4095")]);
        assert_eq!(option(Some(&map), "mtu").unwrap(), Some(1400_u32));
        assert_eq!(option::<u32>(Some(&map), "none").unwrap(), None);
        assert_eq!(option::<u32>(None, "mtu").unwrap(), None);
        let error = option::<u32>(Some(&map), "metric").unwrap_err();
        assert_eq!(error.to_string(), "unable to parse \"metric\": invalid digit found in string");
        assert_eq!(vlan(Some(&map)).unwrap_err().to_string(), "vlan must be between 0 and 4094");
        assert_eq!(vlan(Some(&options(&[("vlan", "4094")]))).unwrap(), Some(4094));
    }

    #[test]
    fn names_of_interfaces_are_what_they_say() {
        for name in ["eth0", "", "br-lan.10@x", "sixteen-bytes-xx"] {
            assert_eq!(interface("bridge", name).unwrap(), name);
        }
        for name in ["eth%d", "%", "a%b", "../x", "/", ".", ".."] {
            let error = interface("bridge", name).unwrap_err().to_string();
            assert_eq!(error, format!("invalid bridge interface name \"{name}\""));
        }
    }

    #[test]
    fn mac_addresses_have_six_bytes() {
        let wanted = MacAddr([0xaa, 0xbb, 0xcc, 0, 1, 2]);
        for text in ["aa:bb:cc:00:01:02", "AA-BB-CC-0-1-2"] {
            assert_eq!(mac(text).unwrap(), wanted);
        }
        assert_eq!(mac("aa:bb").unwrap_err().to_string(), "invalid mac length for address: aa:bb");
        assert_eq!(
            mac("zz:bb:cc:00:01:02").unwrap_err().to_string(),
            "unable to parse mac address zz:bb:cc:00:01:02: invalid digit found in string"
        );
        for bad in ["", "::::::", "aa:bb:cc:dd:ee:ff:00", "100:0:0:0:0:0"] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn isolation_defaults_follow_the_generation() {
        use Compat::{One, Two};
        for (text, compat, wanted) in [
            (None, One, Isolation::Never),
            (None, Two, Isolation::Strict),
            (Some("false"), Two, Isolation::Never),
            (Some("true"), One, Isolation::Normal),
            (Some("strict"), One, Isolation::Strict),
            (Some("odd"), One, Isolation::Never),
        ] {
            assert_eq!(Isolation::from_option(text, compat).unwrap(), wanted, "{text:?} {compat:?}");
        }
        let error = Isolation::from_option(Some("odd"), Two).unwrap_err();
        assert_eq!(error.to_string(), "invalid isolate option \"odd\"");
    }

    #[test]
    fn subnets_must_be_distinct() {
        let check = |list: &[&str]| {
            let list: Vec<IpNet> = list.iter().map(|text| text.parse().unwrap()).collect();
            distinct(&list).map_err(|error| error.to_string())
        };
        assert_eq!(check(&["10.0.0.0/24", "10.0.1.0/24", "fd00::/64"]), Ok(()));
        assert_eq!(
            check(&["10.0.0.0/24", "10.0.0.9/24"]).unwrap_err(),
            "duplicate subnet defined: 10.0.0.0/24"
        );
        assert_eq!(
            check(&["10.0.0.0/16", "10.0.3.0/24"]).unwrap_err(),
            "overlapping subnets: 10.0.0.0/16 and 10.0.3.0/24"
        );
    }
}
