//! Networks whose definition becomes another one while containers are on them.

use crate::host;
use crate::request::{Join, publish, request};
use crate::t13_others::neighbour;

const V4: &str = "10.88.0.1/16";
const V6: &str = "fd10:88::1/64";

#[test]
fn a_network_in_use_may_get_and_lose_its_way_out() {
    let name = "a_network_in_use_may_get_and_lose_its_way_out";
    let Some(host) = host!(ours "a_network_in_use_may_get_and_lose_its_way_out").with_dns(name) else {
        return;
    };
    let far = neighbour(&host);
    let containers = [host.container(), host.container(), host.container()];
    let mut requests = Vec::new();
    for (number, (container, internal)) in containers.iter().zip([true, false, true]).enumerate() {
        let own = number + 2;
        let (v4, v6) = (format!("10.88.0.{own}"), format!("fd10:88::{own}"));
        let join = Join::bridge("podman", "podman0", &[V4, V6]).addresses(&[&v4, &v6]);
        let join = join.with("internal", internal).with("dns_enabled", true);
        let mut request = request(&format!("c{number}"), &[join]);
        if !internal {
            request = publish(request, &[("", 8080, 80, "tcp", 1)]);
        }
        host.setup(container, &request);
        requests.push(request);
        let route = format!("ip route replace default via {}", V4.trim_end_matches("/16"));
        assert!(container.sh(&route).unwrap().success());
        let out = container.sh("ping -c1 -W1 198.51.100.2").unwrap();
        assert_eq!(out.success(), !internal, "{out}\n{}", host.rules());
        assert_eq!(host.rules().contains("netavark_internal"), internal, "{}", host.rules());
        let mut files: Vec<_> = std::fs::read_dir(host.config.join("aardvark-dns")).unwrap().collect();
        files.retain(|file| file.as_ref().unwrap().file_name() != "aardvark.pid");
        let file = if internal { "podman%int" } else { "podman" };
        assert!(
            files.len() == 1 && files.first().unwrap().as_ref().unwrap().file_name() == file,
            "{files:?}"
        );
        if !internal {
            let server = container.within(|| std::net::TcpListener::bind("0.0.0.0:80")).unwrap();
            far.within(|| std::net::TcpStream::connect("198.51.100.1:8080")).unwrap();
            drop(server);
        }
    }
    for (container, request) in containers.iter().zip(&requests) {
        host.teardown(container, request);
    }
}
