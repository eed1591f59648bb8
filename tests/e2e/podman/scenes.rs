//! What every Podman is put through, whoever runs it and whichever version it is.

use slipway_lab::{HOST4, LIMIT, WORLD4, WORLD6};

use super::Podman;

const NETWORK_ONE: [&str; 8] =
    ["network", "create", "--subnet", "10.89.7.0/24", "--subnet", "fd89:7::/64", "--ipv6", "one"];

/// Names of containers and of the world, the world itself over both families, and a published port from there.
pub(super) fn names_world_and_ports(podman: &Podman) {
    std::fs::write(podman.lab.dir().join("www/index.html"), "page of world\n").unwrap();
    let (_dns, _http) = (podman.lab.dns().unwrap(), podman.lab.http().unwrap());
    podman.run(&NETWORK_ONE);
    podman.server("web", &["--network", "one", "--network-alias", "shared", "-p", "8080:80"]);
    podman.sleeper("client", &["--network", "one"]);
    for name in ["web", "shared", "web.dns.podman"] {
        assert_eq!(podman.found("client", name), ["10.89.7.2", "fd89:7::2"], "{name}");
    }
    assert_eq!(podman.found("web", "client"), ["10.89.7.3", "fd89:7::3"]);
    assert_eq!(podman.found("client", "name.test"), [WORLD4, WORLD6]);
    for (from, page) in [
        ("shared", "web"),
        ("[fd89:7::2]", "web"),
        ("name.test", "world"),
        (WORLD4, "world"),
        (&format!("[{WORLD6}]"), "world"),
    ] {
        let shown = podman.exec("client", &format!("wget -qO- http://{from}/index.html"));
        assert_eq!(shown.out(), format!("page of {page}\n"), "{from}: {shown}");
    }
    assert_eq!(podman.fetch(&format!("{HOST4}:8080")), "page of web\n");
    podman.remove(&["web"]);
    let again = podman.lab.world(["curl", "-sm", "2", &format!("http://{HOST4}:8080/")]);
    assert_eq!(again.run(LIMIT).unwrap().out(), "");
    podman.remove(&["client"]);
    podman.leaves_nothing();
}
