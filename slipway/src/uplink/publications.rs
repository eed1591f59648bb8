//! Ports of a container that are published, and what they hang on.
//!
//! A container has one publication. It is *awake* while its rules are in force, in the workers of the networks where
//! they lead, and *asleep* while the container has no address to lead to. One with an exit descriptor lives until that
//! is closed, whatever networks the container leaves and joins; one without ends with the container's last network.

use super::door::listener;
use super::ports::Port;
use super::records::Records;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use slipway_portfwd::Rule;
use slipway_portfwd::rule::Ports;
use slipway_uplink::envelope::Refusal;
use std::io;
use std::num::NonZeroU16;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

/// The published ports of one container.
#[derive(Debug)]
pub struct Publication {
    /// As they were asked for.
    pub mappings: Vec<Vec<Port>>,
    /// The ids that the client was told, one for each mapping.
    pub ids: Vec<u64>,
    /// It ends when this is closed on the other side.
    pub exit: Option<OwnedFd>,
    /// Where the container engine tells of new addresses.
    pub door: Option<UnixListener>,
    /// The rules in force; none while it is asleep.
    pub live: Vec<Live>,
}

/// Descriptors that come with a publication.
#[derive(Debug, Default)]
pub struct Strings {
    /// Its end is the publication's.
    pub exit: Option<OwnedFd>,
    /// Where the container engine tells of new addresses.
    pub door: Option<UnixListener>,
}

/// A rule and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The network whose worker listens.
    pub network: String,
    /// The rule.
    pub rule: Rule,
    /// The place of its mapping.
    pub mapping: usize,
}

/// A rule in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// What was planned.
    pub planned: Planned,
    /// Its id in the worker; 0: this host has no IPv6, so this half of a rule is not needed.
    pub id: u64,
}

/// The rules that publish these ports of a container as things are, on networks that are `served`. What another one of
/// them says already is left out: two sockets cannot listen there.
///
/// # Errors
/// When there is no address for one of them.
pub fn plan(
    records: &Records,
    served: &dyn Fn(&str) -> bool,
    container: &str,
    mappings: &[Vec<Port>],
) -> Result<Vec<Planned>, Refusal> {
    let v4 = records.target(container, false, served);
    let v6 = records.target(container, true, served);
    let mut planned = Vec::new();
    for (mapping, ports) in mappings.iter().enumerate() {
        for port in ports {
            let rules = port.rules(
                v4.and_then(|(_, ip)| if let core::net::IpAddr::V4(ip) = ip { Some(ip) } else { None }),
                v6.and_then(|(_, ip)| if let core::net::IpAddr::V6(ip) = ip { Some(ip) } else { None }),
            )?;
            for rule in rules {
                let to = if rule.target().is_some_and(|target| target.is_ipv6()) { v6 } else { v4 };
                let Some((network, _)) = to else { continue };
                planned.push(Planned { network: network.to_owned(), rule, mapping });
            }
        }
    }
    Ok(folded(planned))
}

fn folded(planned: Vec<Planned>) -> Vec<Planned> {
    let mut kept: Vec<Planned> = Vec::with_capacity(planned.len());
    for next in planned {
        if !kept.iter().any(|other| covers(other, &next)) {
            kept.retain(|other| !covers(&next, other));
            kept.push(next);
        }
    }
    kept
}

/// Whether `one` leads whatever `other` leads to the same place.
fn covers(one: &Planned, other: &Planned) -> bool {
    let place = |it: &Planned| (it.network.clone(), it.rule.proto(), it.rule.target());
    let listen = |it: &Planned| it.rule.listen().filter(|listen| !listen.ip().is_unspecified());
    // Rules of one target are of one family, so that all addresses are all of the other's family.
    place(one) == place(other)
        && (listen(one).is_none() || listen(one) == listen(other))
        && holds(one.rule.ports(), other.rule.ports())
}

/// Whether the pairs of `other` are among those of `one`. What the kernel chooses is never the same.
fn holds(one: Ports, other: Ports) -> bool {
    let (Some(first), Some(begin)) = (one.first_listen(), other.first_listen()) else { return false };
    let after = |from: NonZeroU16, to: NonZeroU16| to.get().checked_sub(from.get());
    let offset = after(first, begin);
    let end = offset.and_then(|offset| offset.checked_add(other.count().get()));
    offset == after(one.first_target(), other.first_target())
        && end.is_some_and(|end| end <= one.count().get())
}

impl Strings {
    /// Checks what came with a request: what never ends would never let the ports go, and what nobody can connect to
    /// would be ready again and again.
    ///
    /// # Errors
    /// When they are something else than they should be.
    pub fn new(exit: Option<OwnedFd>, door: Option<OwnedFd>) -> Result<Self, Refusal> {
        if let Some(exit) = &exit
            && !has_another_side(exit)
                .map_err(|error| Refusal::system("look at the exit descriptor", &error))?
        {
            return Err(Refusal::new(
                "the exit descriptor must be a pipe or a socket, which ends with its other side",
            ));
        }
        let door = door.map(listener).transpose();
        let door = door.map_err(|error| Refusal::system("listen on the second descriptor", &error))?;
        Ok(Self { exit, door })
    }
}

fn has_another_side(fd: &OwnedFd) -> io::Result<bool> {
    let kind = SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT;
    Ok([SFlag::S_IFIFO, SFlag::S_IFSOCK].contains(&kind))
}

impl Publication {
    /// Whether what is in force is just this.
    #[must_use]
    pub fn is(&self, planned: &[Planned]) -> bool {
        self.live.iter().map(|live| &live.planned).eq(planned)
    }

    /// Whether its exit descriptor was closed on the other side.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let Some(exit) = &self.exit else { return false };
        let mut fds = [PollFd::new(exit.as_fd(), PollFlags::empty())];
        let ended = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        poll(&mut fds, PollTimeout::ZERO).is_ok()
            && fds[0].revents().is_some_and(|events| events.intersects(ended))
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::{container, network};
    use super::*;
    use serde_json::{Value, json};
    use slipway_uplink::protocol::Request;

    fn mappings(ports: &Value) -> Vec<Vec<Port>> {
        let request = json!({ "execute": "publish", "arguments": { "container_id": "web", "ports": ports } });
        match Request::parse(request.to_string().as_bytes()).unwrap() {
            Request::Publish { mappings, .. } => {
                mappings.iter().map(|mapping| Port::of(mapping).unwrap()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn planned(records: &Records, ports: &Value) -> Result<Vec<String>, String> {
        let planned = plan(records, &|_| true, "web", &mappings(ports)).map_err(|refusal| refusal.text)?;
        Ok(planned.iter().map(|p| format!("{} {} {}", p.mapping, p.network, p.rule)).collect())
    }

    #[test]
    fn each_family_leads_to_the_first_network_that_has_it() {
        let mut records = Records::default();
        records.join(network("a", "10.1.0.0/24", "10.1.0.1", false), container("web", &["10.1.0.2"]));
        records.join(network("b", "fd00:2::/64", "fd00:2::1", false), container("web", &["fd00:2::2"]));
        let all = json!([
            { "host_port": 8080, "container_port": 80, "protocol": "tcp", "range": 1 },
            { "host_ip": "127.0.0.1", "host_port": 5000, "container_port": 50, "protocol": "udp", "range": 3 },
            { "host_ip": "::1", "host_port": 53, "container_port": 53, "protocol": "tcp,udp" },
        ]);
        assert_eq!(
            planned(&records, &all).unwrap(),
            [
                "0 a 8080:10.1.0.2:80/tcp",
                "0 b 8080:[fd00:2::2]:80/tcp",
                "1 a 127.0.0.1:5000-5002:10.1.0.2:50-52/udp",
                "2 b [::1]:53:[fd00:2::2]:53/tcp",
                "2 b [::1]:53:[fd00:2::2]:53/udp",
            ]
        );
        records.leave("b", "web");
        let error = planned(&records, &all).unwrap_err();
        assert!(error.contains("cannot forward ::1: the container has no IPv6 address"), "{error}");
        records.leave("a", "web");
        let error = planned(&records, &all).unwrap_err();
        assert!(error.contains("no address on any network"), "{error}");
    }

    #[test]
    fn what_says_the_same_is_said_once() {
        let mut records = Records::default();
        records.join(network("a", "10.1.0.0/24", "10.1.0.1", false), container("web", &["10.1.0.2"]));
        records.join(network("b", "fd00:2::/64", "fd00:2::1", false), container("web", &["fd00:2::2"]));
        let port = |ip: &str, host: u16, inside: u16, range: u16| json!({ "host_ip": ip, "host_port": host, "container_port": inside, "protocol": "tcp", "range": range });
        let folded = |ports: &[Value]| planned(&records, &json!(ports)).unwrap();
        let all = ["0 a 8080:10.1.0.2:80/tcp", "0 b 8080:[fd00:2::2]:80/tcp"];
        for other in ["", "::", "::1", "0.0.0.0", "127.0.0.1"] {
            assert_eq!(folded(&[port("", 8080, 80, 1), port(other, 8080, 80, 1)]), all, "{other}");
        }
        assert_eq!(
            folded(&[port("127.0.0.1", 8080, 80, 1), port("::", 8080, 80, 1), port("", 8080, 80, 1)]),
            ["1 b [::]:8080:[fd00:2::2]:80/tcp", "2 a 8080:10.1.0.2:80/tcp"]
        );
        let run = ["0 a 127.0.0.1:8080-8084:10.1.0.2:80-84/tcp"];
        assert_eq!(folded(&[port("127.0.0.1", 8080, 80, 5), port("127.0.0.1", 8082, 82, 3)]), run);
        // What leads elsewhere is told by the kernel, and so is what is only partly the same.
        for (host, inside, range) in [(8080, 81, 1), (8082, 81, 2), (8082, 82, 4), (8079, 79, 2)] {
            let both = folded(&[port("127.0.0.1", 8080, 80, 5), port("127.0.0.1", host, inside, range)]);
            assert_eq!(both.len(), 2, "{host}");
        }
        assert_eq!(folded(&[port("127.0.0.1", 8080, 80, 1), port("127.0.0.2", 8080, 80, 1)]).len(), 2);
    }

    #[test]
    fn a_closed_exit_descriptor_is_noticed() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let publication =
            Publication { mappings: vec![], ids: vec![], exit: Some(read), door: None, live: vec![] };
        assert!(!publication.has_ended());
        drop(write);
        assert!(publication.has_ended() && publication.is(&[]));
    }

    #[test]
    fn descriptors_are_what_they_should_be() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        use std::os::unix::net::UnixListener;
        let refused = |exit, door| Strings::new(exit, door).unwrap_err().text;
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        assert!(refused(Some(file), None).contains("must be a pipe or a socket"));
        let (read, _write) = nix::unistd::pipe().unwrap();
        let (pair, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).unwrap();
        let stream = UnixListener::bind(tempfile::tempdir().unwrap().path().join("s")).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for door in [read.try_clone().unwrap(), pair, stream.into(), tcp.into()] {
            let text = refused(None, Some(door));
            assert!(text.starts_with("cannot listen on the second descriptor: "), "{text}");
        }
        let place = tempfile::tempdir().unwrap();
        let door = slirp_compat::rootlessport::listen_beside(&place.path().join("rp"), "c").unwrap();
        for exit in [read, other] {
            assert!(Strings::new(Some(exit), Some(door.try_clone().unwrap())).is_ok());
        }
        assert!(Strings::new(None, None).is_ok());
    }
}
