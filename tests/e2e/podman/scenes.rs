//! What every Podman is put through, whoever runs it and whichever version it is.
//!
//! A scene makes its networks and removes them, so that several can follow each other.

use slipway_lab::{Cmd, HOST4, HOST6, LIMIT, Running, WORLD4, WORLD6};

use super::{Podman, User};

/// Names of containers and of the world, the world itself over both families, and a published port from there.
pub(super) fn names_world_and_ports(podman: &Podman) {
    std::fs::write(podman.lab.dir().join("www/index.html"), "page of world\n").unwrap();
    let (_dns, _http) = (podman.lab.dns().unwrap(), podman.lab.http().unwrap());
    let subnets = ["--subnet", "10.89.7.0/24", "--subnet", "fd89:7::/64", "--ipv6"];
    podman.run(&[&["network", "create"][..], &subnets, &["one"]].concat());
    podman.server("web", &["--network", "one", "--network-alias", "shared", "-p", "8080:80"]);
    podman.sleeper("client", &["--network", "one"]);
    for name in ["web", "shared", "web.dns.podman"] {
        assert_eq!(podman.found("client", name), ["10.89.7.2", "fd89:7::2"], "{name}");
    }
    assert_eq!(podman.found("web", "client"), ["10.89.7.3", "fd89:7::3"]);
    assert_eq!(podman.found("client", "name.test"), [WORLD4, WORLD6]);
    for address in ["10.89.7.2", "fd89:7::2"] {
        let shown = podman.exec("client", &format!("host {address}")).out();
        assert!(shown.contains("pointer web."), "{shown}");
    }
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
    assert_eq!(podman.fetch(&format!("[{HOST6}]:8080")), "page of web\n");
    assert!(podman.runs("aardvark-dns"));
    assert_eq!(podman.runs(podman.way_out), podman.user == User::Ordinary, "{}", podman.way_out);
    podman.remove(&["web"]);
    let again = podman.lab.world(["curl", "-sm", "2", &format!("http://{HOST4}:8080/")]);
    assert_eq!(again.run(LIMIT).unwrap().out(), "");
    podman.remove(&["client"]);
    podman.run(&["network", "rm", "one"]);
    podman.leaves_nothing();
}

/// Networks that a running container joins and leaves, one of them internal, and its network set up anew (without an
/// address it was to have, for Podman 6.1 then finds that taken by the container itself).
pub(super) fn networks_come_and_go(podman: &Podman) {
    let _http = podman.lab.http().unwrap();
    podman.run(&["network", "create", "--subnet", "10.89.7.0/24", "one"]);
    podman.run(&["network", "create", "--internal", "--subnet", "10.89.9.0/24", "inside"]);
    podman.server("web", &["--network", "one:mac=02:00:00:00:00:20", "-p", "8080:80"]);
    podman.sleeper("inner", &["--network", "inside:ip=10.89.9.30"]);
    // Nobody of an internal network gets out.
    assert!(podman.exec("inner", "ip address show eth0").out().contains("10.89.9.30/24"));
    assert!(!podman.exec("inner", "ip route").out().contains("default"));
    assert!(!podman.exec("inner", &format!("nc -w 1 {WORLD4} 80")).success());
    podman.run(&["network", "connect", "inside", "web"]);
    let fetch = "for i in 1 2 3 4 5; do wget -qO- http://web/index.html && break; sleep 0.2; done";
    let page = podman.exec("inner", fetch);
    assert_eq!(page.out(), "page of web\n", "{page}");
    podman.run(&["network", "disconnect", "inside", "web"]);
    assert!(!podman.exec("web", "ip address show eth1").success());
    assert_eq!(podman.fetch(&format!("{HOST4}:8080")), "page of web\n");
    let address = podman.address("web");
    podman.run(&["network", "reload", "web"]);
    let shown = podman.exec("web", "ip address show eth0").out();
    assert!(shown.contains(&format!("{address}/24")) && shown.contains("02:00:00:00:00:20"), "{shown}");
    assert_eq!(podman.fetch(&format!("{HOST4}:8080")), "page of web\n");
    podman.remove(&["web", "inner"]);
    podman.run(&["network", "rm", "one", "inside"]);
    podman.leaves_nothing();
}

/// Containers each with a `pasta` of its own, which is what a rootless Podman starts when nobody names a network.
pub(super) fn pasta(podman: &Podman) {
    std::fs::write(podman.lab.dir().join("www/index.html"), "page of world\n").unwrap();
    let _web = podman.lab.http().unwrap();
    let _dns = podman.lab.dns().unwrap();
    let options =
        ["--network", "pasta", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "9000-9009:9000-9009/udp"];
    podman.server("alone", &options);
    // The host's own address, names by the host's servers, and the world.
    let shown = podman.exec("alone", "ip -o -4 address").out();
    assert!(shown.contains(HOST4), "{shown}");
    assert_eq!(podman.found("alone", "name.test"), [WORLD4, WORLD6]);
    let page = podman.exec("alone", &format!("wget -qO- http://{WORLD4}/index.html")).out();
    assert_eq!(page, "page of world\n");
    // From the world, from the host's own address and from its loopback.
    assert_eq!(podman.fetch(&format!("{HOST4}:8080")), "page of alone\n");
    // A tree has no curl: the machine's, in host's network.
    let near = |at: &str| {
        let host = podman.lab.host_pid().to_string();
        let page = format!("http://{at}/index.html");
        Cmd::new(["nsenter", "--target", &host, "--net", "curl", "-sgm", "5", &page])
            .run(LIMIT)
            .unwrap()
            .out()
    };
    for at in ["127.0.0.1:8080", "127.0.0.1:8081", "[::1]:8080"] {
        assert_eq!(near(at), "page of alone\n", "{at}");
    }
    let refused =
        podman.lab.world(["curl", "-sgm", "5", &format!("http://{HOST4}:8081/")]).run(LIMIT).unwrap();
    assert!(!refused.success(), "published on loopback alone: {refused}");
    // The host itself has a name, though the container has its address.
    let served = podman.lab.dir().join("www").to_string_lossy().into_owned();
    let words =
        ["nsenter", "--target", &podman.lab.host_pid().to_string(), "--net", "busybox", "httpd", "-f"];
    let server = Cmd::new(words).args(["-p", "7000", "-h", &served]);
    let _server = Running::server(server, "tcp", 7000).unwrap();
    let shown = podman.exec("alone", "wget -qO- http://host.containers.internal:7000/index.html");
    assert_eq!(shown.out(), "page of world\n", "{shown}");
    podman.remove(&["alone"]);
    podman.leaves_nothing();
}

/// An image whose steps need the network: Buildah, by which Podman builds, has a `pasta` for each of them.
pub(super) fn build(podman: &Podman) {
    std::fs::write(podman.lab.dir().join("www/index.html"), "page of world\n").unwrap();
    let (_web, _dns) = (podman.lab.http().unwrap(), podman.lab.dns().unwrap());
    let dir = podman.lab.home().join("build");
    podman.sh(&format!("mkdir -p {}", dir.display()));
    let steps = format!(
        "FROM localhost/bb\nRUN wget -qO- http://name.test/index.html > /page\nRUN ip -o -4 address > /addresses\n\
         FROM localhost/bb\nCOPY --from=0 /page /addresses /\nRUN wget -qO- http://{WORLD4}/index.html >> /page\n"
    );
    std::fs::write(dir.join("Containerfile"), steps).unwrap();
    // It mounts an overlay on its temporary directory, which may be none itself.
    let build = podman.cmd(&["build", "-q", "-t", "localhost/built", &dir.to_string_lossy()]);
    build.env("TMPDIR", podman.lab.home()).ok(LIMIT).unwrap();
    let shown =
        podman.run(&["run", "--rm", "--network", "none", "localhost/built", "cat", "/page", "/addresses"]);
    assert!(shown.starts_with("page of world\npage of world\n") && shown.contains(HOST4), "{shown}");
    assert!(!podman.runs("pasta"), "each has gone with its step");
    podman.run(&["rmi", "-f", "localhost/built"]);
    podman.leaves_nothing();
}
