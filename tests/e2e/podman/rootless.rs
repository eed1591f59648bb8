//! Rootless Podman of Debian with bridge networks, through the rootless-netns and our slirp4netns.

use slipway_lab::{HOST4, WORLD4};

use super::scenes::names_world_and_ports;
use super::{Pair, Podman, Wish};

#[test]
fn rootless_names_and_ports_with_both() {
    let Some(podman) = Podman::new("rootless_names_and_ports_with_both", &Wish::new(Pair::OURS)) else {
        return;
    };
    names_world_and_ports(&podman);
}

#[test]
fn rootless_names_and_ports_with_debians_aardvark() {
    let wish = Wish::new(Pair::STOCK_DNS);
    let Some(podman) = Podman::new("rootless_names_and_ports_with_debians_aardvark", &wish) else { return };
    names_world_and_ports(&podman);
}

#[test]
fn rootless_networks_come_and_go_under_a_running_container() {
    let name = "rootless_networks_come_and_go_under_a_running_container";
    let Some(podman) = Podman::new(name, &Wish::new(Pair::OURS)) else { return };
    let _http = podman.lab.http().unwrap();
    podman.run(&["network", "create", "--subnet", "10.89.7.0/24", "one"]);
    podman.run(&["network", "create", "--internal", "--subnet", "10.89.9.0/24", "inside"]);
    podman.server("web", &["--network", "one:ip=10.89.7.20,mac=02:00:00:00:00:20", "-p", "8080:80"]);
    podman.sleeper("inner", &["--network", "inside"]);
    // Nobody of an internal network gets out.
    assert!(!podman.exec("inner", "ip route").out().contains("default"));
    assert!(!podman.exec("inner", &format!("nc -w 1 {WORLD4} 80")).success());
    podman.run(&["network", "connect", "inside", "web"]);
    let fetch = "for i in 1 2 3 4 5; do wget -qO- http://web/index.html && break; sleep 0.2; done";
    let page = podman.exec("inner", fetch);
    assert_eq!(page.out(), "page of web\n", "{page}");
    podman.run(&["network", "disconnect", "inside", "web"]);
    assert!(!podman.exec("web", "ip address show eth1").success());
    assert_eq!(podman.fetch(&format!("{HOST4}:8080")), "page of web\n");
    podman.run(&["network", "reload", "web"]);
    let shown = podman.exec("web", "ip address show eth0").out();
    assert!(shown.contains("10.89.7.20/24") && shown.contains("02:00:00:00:00:20"), "{shown}");
    assert_eq!(podman.fetch(&format!("{HOST4}:8080")), "page of web\n");
    podman.remove(&["web", "inner"]);
    podman.leaves_nothing();
}
