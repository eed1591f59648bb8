//! Where a socket leads that is exposed: `tcp://HOST:PORT` or `ssh-tunnel://USER@HOST/PATH?key=FILE`. Pure.
//!
//! As much of RFC 3986 as these two take, with the words of gvproxy and Go's net/url for what they do not.

use super::http::head::parameter;
use crate::orders::endpoint;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Where a socket leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a port in the network.
    Tcp(SocketAddr),
    /// To a socket of a guest, by SSH.
    Ssh(Tunnel),
}

/// A socket of a guest, and the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// Where the guest's SSH server is.
    pub(crate) server: SocketAddr,
    /// Who to be there.
    pub(crate) user: String,
    /// The private key's file.
    pub(crate) key: PathBuf,
    /// The socket there.
    pub(crate) path: String,
}

/// Port 22 (RFC 4253 §4).
pub(crate) const SSH: u16 = 22;

/// Reads a remote.
///
/// # Errors
/// In gvproxy's words.
pub(crate) fn parse(remote: &str) -> Result<Target, String> {
    let unreadable = |why: &str| format!("failed to parse remote uri :{remote} : parse {remote:?}: {why}");
    if remote.chars().any(|letter| letter.is_ascii_control()) {
        return Err(unreadable("net/url: invalid control character in URL"));
    }
    let unknown = |scheme: &str| format!("remote protocol for unix forwarder is not implemented: {scheme}");
    let Some((scheme, rest)) = remote.split_once(':') else { return Err(unknown("")) };
    let is_scheme = scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
    if !is_scheme {
        return Err(unreadable(match scheme {
            "" => "missing protocol scheme",
            _ => "first path segment in URL cannot contain colon",
        }));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let rest = rest.strip_prefix("//").unwrap_or("");
    let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = user.split_once(':').map_or(user, |(user, _password)| user);
    match scheme.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Target::Tcp(endpoint::remote(host)?)),
        "ssh-tunnel" => {
            let key = parameter(query, "key");
            if key.is_empty() {
                return Err("key not provided for unix-ssh connection".to_owned());
            }
            if matches!(path, "" | "/") {
                return Err("remote uri must contain a path to a socket file".to_owned());
            }
            if !parameter(query, "passphrase").is_empty() {
                return Err("keys with a passphrase are not served".to_owned());
            }
            if parameter(query, "secure") == "true" {
                return Err("secure: there are no known hosts here".to_owned());
            }
            let server = server(host)?;
            Ok(Target::Ssh(Tunnel { server, user: user.to_owned(), key: key.into(), path: path.to_owned() }))
        }
        other => Err(unknown(other)),
    }
}

/// An SSH server, whose port need not be named.
fn server(host: &str) -> Result<SocketAddr, String> {
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) if bare == host || address.is_ipv6() => endpoint::remote(&match address {
            IpAddr::V4(_) => format!("{bare}:{SSH}"),
            IpAddr::V6(_) => format!("[{bare}]:{SSH}"),
        }),
        _ => endpoint::remote(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn both_kinds_are_read() {
        assert_eq!(parse("tcp://192.168.127.2:2375"), Ok(Target::Tcp("192.168.127.2:2375".parse().unwrap())));
        assert_eq!(parse("tcp://[fd00::2]:80/x"), Ok(Target::Tcp("[fd00::2]:80".parse().unwrap())));
        let tunnel = |remote: &str| match parse(remote) {
            Ok(Target::Ssh(tunnel)) => tunnel,
            other => panic!("{other:?}"),
        };
        let crc = tunnel("ssh-tunnel://core@192.168.127.2:22/run/podman/podman.sock?key=%2Fhome%2Fu%2Fid");
        assert_eq!(crc.server.to_string(), "192.168.127.2:22");
        assert!(
            crc.user == "core" && crc.path == "/run/podman/podman.sock" && crc.key == Path::new("/home/u/id")
        );
        assert_eq!(tunnel("ssh-tunnel://u:p@1.2.3.4/x?key=k").server.to_string(), "1.2.3.4:22");
        assert_eq!(tunnel("ssh-tunnel://u@[fd00::2]/x?key=k").server.to_string(), "[fd00::2]:22");
    }

    #[test]
    fn what_leads_nowhere_is_told() {
        for (remote, words) in [
            ("", "remote protocol for unix forwarder is not implemented: "),
            ("http://x", "remote protocol for unix forwarder is not implemented: http"),
            (
                "192.168.127.2:80",
                "failed to parse remote uri :192.168.127.2:80 : parse \"192.168.127.2:80\": first path segment in \
                 URL cannot contain colon",
            ),
            (":80", "failed to parse remote uri ::80 : parse \":80\": missing protocol scheme"),
            ("tcp://guest:80", "invalid remote addr"),
            ("tcp:1.2.3.4:80", "invalid remote addr"),
            ("tcp://1.2.3.4:x", "strconv.ParseUint: parsing \"x\": invalid syntax"),
            ("ssh-tunnel://u@1.2.3.4/x", "key not provided for unix-ssh connection"),
            ("ssh-tunnel://u@1.2.3.4/x?key=k&passphrase=p", "keys with a passphrase are not served"),
            ("ssh-tunnel://u@1.2.3.4/x?key=k&secure=true", "secure: there are no known hosts here"),
            ("ssh-tunnel://u@1.2.3.4/?key=k", "remote uri must contain a path to a socket file"),
        ] {
            assert_eq!(parse(remote), Err(words.to_owned()), "{remote}");
        }
    }
}
