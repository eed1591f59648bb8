//! RootlessKit 2 with `--net=pasta`: how Docker gets a rootless network without slirp4netns.
//!
//! The kit comes from a tree of its own (`rootlesskit`, from Debian sid) and runs on the lab's *host* as its ordinary
//! user. It starts `pasta` for its child, or for a namespace that hangs beside the child (`--detach-netns`), and waits
//! until that has gone to the background. Ports are published by `pasta` itself, which follows who listens inside
//! (the driver *implicit*), or not at all; other drivers the kit refuses with this network.

use nix::sys::signal::Signal;
use slipway_lab::{HOST4, LIMIT, Lab, WORLD4, built, missing, skip, tree};

/// A lab whose *host* has the kit, and our `pasta`.
fn lab(test: &str) -> Option<Lab> {
    let make = || -> Result<Lab, String> {
        let (tree, ours) = (tree("rootlesskit")?, built("SLIPWAY_E2E_BINARY", "slipway")?);
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root to give the lab's user a range of ids".to_owned());
        }
        if let Some(program) = missing(&["busybox", "dnsmasq"]) {
            return Err(format!("{program} is not installed (cargo xtask deps)"));
        }
        let mut options = slipway_lab::subject()?.lab_options();
        options.tree = Some(tree);
        options.programs.push(("pasta".to_owned(), ours));
        Lab::new(&options).map_err(|error| error.to_string())
    };
    match make() {
        Ok(lab) => Some(lab),
        // It is fetched, so it may be missing where nothing else may.
        Err(reason) if reason.starts_with("there is no tree") => {
            println!("SKIP {test}: {reason}");
            None
        }
        Err(reason) => skip(test, &reason),
    }
}

#[test]
fn rootlesskit_2_uses_it_with_and_without_ports_and_a_detached_namespace() {
    let Some(lab) = lab("rootlesskit_2_uses_it_with_and_without_ports_and_a_detached_namespace") else {
        return;
    };
    // It has its own copy of /etc, in which it writes this file anew.
    lab.host_root(["sh", "-c", "echo 127.0.0.1 localhost > /etc/hosts"]).ok(LIMIT).unwrap();
    let _dns = lab.dns().unwrap();
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let _http = lab.http().unwrap();
    for (driver, detached) in [("implicit", false), ("none", false), ("implicit", true), ("none", true)] {
        uses_it(&lab, driver, detached);
    }
}

fn uses_it(lab: &Lab, driver: &str, detached: bool) {
    let case = format!("{driver}, detached: {detached}");
    let enter = if detached { "nsenter -n$ROOTLESSKIT_STATE_DIR/netns" } else { "" };
    let script = format!(
        "{enter} ip -o -4 address show tap0
         {enter} busybox wget -qO- http://{WORLD4}/index.html
         {enter} busybox nslookup -type=a name.test 10.0.2.3
         echo started
         exec {enter} busybox httpd -f -p 8080 -h {}",
        lab.dir().join("www").display()
    );
    let state = lab.dir().join(format!("run/kit-{driver}-{detached}"));
    let mut kit = lab
        .host(["rootlesskit", "--net=pasta", "--mtu=65520", "--copy-up=/etc", "--disable-host-loopback"])
        .args([format!("--port-driver={driver}"), format!("--state-dir={}", state.display())])
        .args([format!("--pasta-binary={}", lab.program("pasta"))])
        .args(if detached { &["--detach-netns"][..] } else { &[] })
        .args(["sh", "-c", &script])
        .start()
        .unwrap();
    if let Err(error) = kit.until(LIMIT, |running| running.stdout().contains("started")) {
        panic!("{case}: {error}: {}{}", kit.stdout(), kit.stderr());
    }
    let shown = kit.stdout();
    for word in ["10.0.2.100/24", "fetched\n", WORLD4] {
        assert!(shown.contains(word), "{case}: no {word}: {shown}{}", kit.stderr());
    }
    // Who listens inside is noticed within a second; without ports nobody is let in even then.
    let (tries, page) = if driver == "implicit" { (50, "fetched\n") } else { (8, "") };
    let fetch = format!(
        "for i in $(seq {tries}); do busybox wget -qO- http://{HOST4}:8080/index.html 2>/dev/null && break; sleep 0.2; done"
    );
    let fetched = lab.world(["sh", "-c", &fetch]).run(LIMIT).unwrap();
    assert_eq!(fetched.out(), page, "{case}: {fetched} {}", kit.stderr());
    kit.signal(Signal::SIGTERM);
    kit.finish(LIMIT).unwrap();
}
