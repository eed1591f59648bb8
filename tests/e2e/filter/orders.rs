//! The process that takes gvproxy's orders, under its list.

use std::time::Duration;

use slipway_host::sandbox::seccomp::{Profile, allowed};
use slipway_lab::{Container, LIMIT, Lab, Running, hold, traced, under_filters};

use crate::gvproxy;
use crate::machine::Machine;

/// What the process that takes gvproxy's orders need not call.
const RARE_ORDERS: &[(libc::c_long, &str)] = &[
    (libc::SYS_writev, "bytes that lie in several pieces"),
    (libc::SYS_getsockname, "the family of a socket that was handed over, where nothing else tells it"),
];

/// Everything that may be asked of it, by the host and by a machine.
fn orders(lab: &Lab, container: &Container, socket: &str) {
    let curl = |words: &[&str], path: &str| {
        let asked = lab.host(["curl", "-sS", "--max-time", "20", "--unix-socket", socket]).args(words);
        asked.args([format!("http://gvproxy{path}")]).run(LIMIT).unwrap().all()
    };
    for path in ["/leases", "/cam", "/stats", "/services/dns/all", "/services/forwarder/all", "/nothing"] {
        curl(&[], path);
    }
    curl(&["-d", r#"{"name":"x.","records":[{"name":"a","ip":"10.0.0.1"}]}"#], "/services/dns/add");
    let at = lab.home().join("exposed").to_string_lossy().into_owned();
    let tcp = r#"{"local":":8080","remote":"192.168.127.2:80","protocol":"tcp"}"#;
    let unix = format!(r#"{{"local":"{at}","remote":"tcp://192.168.127.2:80","protocol":"unix"}}"#);
    for body in [tcp, &unix, &unix] {
        curl(&["-d", body], "/services/forwarder/expose");
    }
    let web = container.cmd(["ncat", "-lk", "0.0.0.0", "80", "-c", "cat"]);
    let _web = Running::server(web, "tcp", 80).unwrap();
    // ncat takes the end of its input for that of everything.
    let say = |what: &str, to: &str| {
        let script = r#"(printf "$1"; sleep 1) | ncat -w 5 -U "$2""#;
        lab.host(["sh", "-c", script, "sh", what, to]).run(LIMIT).unwrap().out()
    };
    assert_eq!(say("ask\\n", &at), "ask\n");
    let tunnel = "POST /tunnel?ip=192.168.127.2&port=80 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nask\\n";
    assert_eq!(say(tunnel, socket), "OKask\n");
    let guest = "POST /connect HTTP/1.1\\r\\nHost: \\r\\nContent-Length: 0\\r\\n\\r\\n";
    say(guest, socket);
    let inside = "curl -sS --max-time 20 http://192.168.127.1/services/forwarder/all";
    let shown = container.sh(inside).unwrap();
    assert!(shown.out().contains(&at), "{shown}");
    for body in [tcp, &unix] {
        curl(&["-d", body], "/services/forwarder/unexpose");
    }
}

#[test]
fn the_list_for_orders_to_gvproxy_is_what_is_called() {
    let test = "the_list_for_orders_to_gvproxy_is_what_is_called";
    let Some(lab) = gvproxy::lab(test, &["strace", "ncat", "curl", "ip"]) else { return };
    let trace = lab.home().join("trace");
    let at = |name: &str| lab.home().join(name).to_string_lossy().into_owned();
    let listener = std::os::unix::net::UnixListener::bind(at("news")).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(at("news"), open).unwrap();
    let mut words = vec![lab.program("gvproxy"), "-ssh-port".into(), "-1".into()];
    for (flag, scheme, name) in
        [("-listen", "unix", "api"), ("-listen-qemu", "unix", "qemu"), ("-notification", "unix", "news")]
    {
        words.extend([flag.to_owned(), format!("{scheme}://{}", at(name))]);
    }
    let mut process = lab.host(traced(&trace)).args(words).start().unwrap();
    process.until(LIMIT, |_| lab.home().join("qemu").exists()).unwrap();
    let container = lab.container().unwrap();
    let machine = Machine::attach(&container, &lab.home().join("qemu"), Some(gvproxy::FIRST));
    let online = "ip address add 192.168.127.2/24 dev vm0; ip route add default via 192.168.127.1";
    assert!(container.sh(online).unwrap().success());
    orders(&lab, &container, &at("api"));
    machine.hang_up();
    let ended = process.finish(LIMIT).unwrap().expect("it ends with its last guest");
    assert!(ended.success(), "{ended}");
    drop(listener);
    // The other process ends a little later, and the tracer writes its last line when it does.
    let of_orders = || under_filters(&trace).into_iter().find(|(pid, _)| *pid != process.pid());
    let over = |_| {
        std::thread::sleep(Duration::from_millis(20));
        of_orders().is_some_and(|(_, calls)| calls.contains(&libc::SYS_exit_group))
    };
    assert!((0..1000).any(over), "it does not end");
    let (_, called) = of_orders().expect("a process that takes orders");
    hold(&called, allowed(Profile::Control).unwrap(), RARE_ORDERS);
}
