//! The set-up's side of the DHCP proxy: one blocking call for an address, one to give it back.
//!
//! Everything else of the set-up is synchronous and has no runtime. This builds one, of one thread, when a network with
//! a DHCP server is met, and drops it before it returns; a call without such networks never comes here. The call waits
//! as long as the proxy does, but not for a proxy that has stopped answering pings.
//!
//! IPv6 is asked for at the same time as IPv4, in a call of its own, and may be refused: a link may have none, and a
//! proxy of another make does not know of it.

use crate::error::{Context as _, Error, Result};
use crate::proto::{Lease, NetavarkProxyClient, NetworkConfig, Version};
use ipnet::IpNet;
use slipway_host::environment;
use slipway_netstack::addr::MacAddr;
use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// Where the proxy listens, by contract.
pub const SOCKET: &str = "/run/podman/nv-proxy.sock";

/// The environment variable that names another socket, for tests and for rootless set-ups, which cannot write to
/// `/run`.
pub const SOCKET_VARIABLE: &str = "SLIPWAY_DHCP_PROXY_SOCKET";

/// Silence after which the proxy is asked for a sign of life, and how long that may take.
const PING: Duration = Duration::from_secs(10);

/// One interface that wants an address.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The interface through which the server is reached: the parent of a macvlan, or a bridge.
    pub host_interface: &'a str,
    /// The interface inside the container.
    pub container_interface: &'a str,
    /// Its MAC address.
    pub mac: MacAddr,
    /// The container's host name; empty for none.
    pub host_name: &'a str,
    /// The container's ID.
    pub container_id: &'a str,
    /// The path of its network namespace.
    pub netns_path: &'a Path,
    /// Whether it wants IPv6 too.
    pub ipv6: bool,
    /// Whether it is to have the default route that the server names.
    pub default_route: bool,
    /// The metric of that; without one it is the proxy's.
    pub metric: Option<u32>,
}

/// What the server granted. The proxy has configured the interface already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The address, with the prefix of the network.
    pub address: IpNet,
    /// The router, if there is one.
    pub gateway: Option<IpAddr>,
    /// DNS servers.
    pub dns_servers: Vec<IpAddr>,
    /// Domains to search.
    pub domains: Vec<String>,
}

/// What was granted in both versions of IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Both {
    /// Of IPv4.
    pub v4: Granted,
    /// Of IPv6, if that was asked for and is to be had.
    pub v6: Option<Granted>,
}

/// Obtains addresses and has the interface configured with them. Without IPv6 that was asked for there is a warning.
///
/// # Errors
/// `unable to obtain lease: ...`, with the proxy's or the connection's words.
pub fn setup(request: &Request<'_>) -> Result<Both> {
    let config = request.config(request.host_name, request.container_id)?;
    if !request.ipv6 {
        let lease = call(Call::Setup, &socket(), config).context("unable to obtain lease")?;
        return Ok(Both { v4: granted(&lease)?, v6: None });
    }
    let (v4, v6) = runtime()?.block_on(both(&socket(), config)).context("unable to obtain lease")?;
    let v6 = v6.and_then(|lease| granted(&lease)).map_err(|error| {
        log::warn!("{} has no IPv6 lease: {error}", request.container_interface);
    });
    Ok(Both { v4: granted(&v4)?, v6: v6.ok() })
}

/// Asks for both at once. Without IPv4 there is nothing.
async fn both(socket: &Path, v4: NetworkConfig) -> Result<(Lease, Result<Lease>)> {
    let client = NetavarkProxyClient::new(connect(socket).await?);
    let v6 = NetworkConfig { version: Version::V6.into(), ..v4.clone() };
    let (first, second) =
        tokio::join!(ask(client.clone(), Call::Setup, v4.clone()), ask(client.clone(), Call::Setup, v6));
    if first.is_err() && second.is_ok() {
        // The container will not be; the proxy gives back what it holds for the interface.
        if let Err(error) = ask(client, Call::Teardown, v4).await {
            log::warn!("{error}");
        }
    }
    Ok((first?, second))
}

/// Gives the address back. It is no error when the proxy knows of none.
///
/// # Errors
/// `unable to release lease: ...`, as above.
pub fn teardown(request: &Request<'_>) -> Result<()> {
    call(Call::Teardown, &socket(), request.config("", "")?).context("unable to release lease").map(drop)
}

/// What the proxy is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// An address.
    Setup,
    /// To give it back.
    Teardown,
}

/// Makes one call and waits for the answer.
///
/// # Errors
/// The proxy's words, or why there is no connection.
pub fn call(call: Call, socket: &Path, config: NetworkConfig) -> Result<Lease> {
    runtime()?.block_on(async { ask(NetavarkProxyClient::new(connect(socket).await?), call, config).await })
}

async fn ask(mut client: NetavarkProxyClient<Channel>, call: Call, config: NetworkConfig) -> Result<Lease> {
    let (answer, doing) = match call {
        Call::Setup => (client.setup(config).await, "get DHCP lease"),
        Call::Teardown => (client.teardown(config).await, "drop DHCP lease"),
    };
    match answer {
        Ok(lease) => Ok(lease.into_inner()),
        Err(status) => Err(Error::msg(format!("{doing}: {}", status.message()))),
    }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn socket() -> PathBuf {
    environment::variable(SOCKET_VARIABLE).map_or_else(|| SOCKET.into(), PathBuf::from)
}

async fn connect(socket: &Path) -> Result<Channel> {
    let path = socket.display();
    let text = socket.to_str().ok_or_else(|| Error::msg(format!("socket \"{path}\": not UTF-8")))?;
    let endpoint = Endpoint::from_shared(format!("unix:{text}"))
        .map_err(|error| Error::msg(format!("socket \"{path}\": {error}")))?
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    endpoint.connect().await.map_err(|error| match io_error(&error) {
        Some(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            Error::msg(format!("socket \"{path}\": {error}, is the netavark-dhcp-proxy.socket unit enabled?"))
        }
        Some(error) => Error::msg(format!("socket \"{path}\": {error}")),
        None => Error::msg(format!("socket \"{path}\": {error}")),
    })
}

/// The system call's error that a transport error wraps.
fn io_error(error: &tonic::transport::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>().filter(|error| error.raw_os_error().is_some())
        {
            return Some(error);
        }
        source = error.source();
    }
    None
}

impl Request<'_> {
    fn config(&self, host_name: &str, container_id: &str) -> Result<NetworkConfig> {
        let ns_path = self.netns_path.to_str().ok_or_else(|| {
            Error::msg(format!("the DHCP proxy cannot be told the path {}", self.netns_path.display()))
        })?;
        Ok(NetworkConfig {
            host_iface: self.host_interface.to_owned(),
            container_iface: self.container_interface.to_owned(),
            container_mac_addr: self.mac.to_string(),
            domain_name: String::new(),
            host_name: host_name.to_owned(),
            version: Version::V4.into(),
            ns_path: ns_path.to_owned(),
            container_id: container_id.to_owned(),
            no_default_route: !self.default_route,
            metric: self.metric,
        })
    }
}

/// Reads the lease: it comes from another program, which has it from the network.
fn granted(lease: &Lease) -> Result<Granted> {
    let address: IpAddr = lease.yiaddr.parse().context("bad address in the lease")?;
    let mask: IpAddr = lease.subnet_mask.parse().context("bad subnet mask in the lease")?;
    if [address, mask].iter().any(|it| it.is_ipv6() != lease.is_v6) {
        return Err(Error::msg(format!(
            "bad address in the lease: {address} {mask} is of the other version of IP"
        )));
    }
    let address = IpNet::with_netmask(address, mask)
        .map_err(|error| Error::msg(format!("bad subnet mask in the lease: {error}")))?;
    let gateway = lease.gateways.first().map(|text| text.parse().context("bad gateway address"));
    let dns_servers = lease.dns_servers.iter().map(|text| text.parse().context("bad dns address"));
    Ok(Granted {
        address,
        gateway: gateway.transpose()?,
        dns_servers: dns_servers.collect::<Result<_>>()?,
        domains: lease.domain_name.split_whitespace().map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(mask: &str) -> Lease {
        Lease {
            yiaddr: "198.51.100.7".into(),
            subnet_mask: mask.into(),
            gateways: vec!["198.51.100.1".into(), "198.51.100.2".into()],
            dns_servers: vec!["198.51.100.53".into()],
            ..Lease::default()
        }
    }

    #[test]
    fn a_lease_is_read_with_care() {
        let read = granted(&lease("255.255.255.0")).unwrap();
        assert_eq!(read.address, "198.51.100.7/24".parse().unwrap());
        assert_eq!(read.gateway, Some("198.51.100.1".parse().unwrap()));
        assert_eq!(read.dns_servers.len(), 1);
        assert!(read.domains.is_empty());
        for bad in [
            lease(""),
            lease("255.0.255.0"),
            Lease { yiaddr: String::new(), ..lease("255.255.255.0") },
            Lease { gateways: vec!["router".into()], ..lease("255.255.255.0") },
            Lease { dns_servers: vec!["".into()], ..lease("255.255.255.0") },
            Lease { is_v6: true, ..lease("255.255.255.0") },
            Lease { yiaddr: "fd00::7".into(), ..lease("ffff:ffff:ffff:ffff::") },
            Lease { yiaddr: "fd00::7".into(), is_v6: true, ..lease("255.255.255.0") },
            Lease { yiaddr: "fd00::7".into(), is_v6: true, ..lease("ffff::ffff") },
        ] {
            assert!(granted(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            granted(&Lease { gateways: vec!["x".into()], ..lease("255.0.0.0") }).unwrap_err().to_string(),
            "bad gateway address: parsing IP address error: invalid IP address syntax"
        );
    }

    #[test]
    fn a_lease_of_ipv6_is_read_in_the_same_way() {
        let read = granted(&Lease {
            yiaddr: "fd00::7".into(),
            is_v6: true,
            gateways: vec!["fe80::1".into()],
            dns_servers: vec!["fd00::53".into()],
            domain_name: "example.com  lan".into(),
            ..lease("ffff:ffff:ffff:ffff::")
        });
        let read = read.unwrap();
        assert_eq!(read.address, "fd00::7/64".parse().unwrap());
        assert_eq!(read.gateway, Some("fe80::1".parse().unwrap()));
        assert_eq!(read.domains, ["example.com", "lan"]);
    }

    #[test]
    fn a_proxy_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nv-proxy.sock");
        let error = call(Call::Setup, &path, NetworkConfig::default()).unwrap_err().to_string();
        let hint = "is the netavark-dhcp-proxy.socket unit enabled?";
        let shown = path.display();
        assert_eq!(error, format!("socket \"{shown}\": No such file or directory (os error 2), {hint}"));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = call(Call::Teardown, &path, NetworkConfig::default()).unwrap_err().to_string();
        assert_eq!(error, format!("socket \"{shown}\": Connection refused (os error 111), {hint}"));
    }
}
