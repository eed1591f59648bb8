//! The laws that make the architecture true: what may depend on what, where unsafe and the clock may be.
//!
//! The engine's purity is a dependency check, not a promise; the arrows between crates are checked on cargo's own
//! metadata, those within a crate on its paths ([`mod@circles`]); `unsafe` and clocks are looked for in the source
//! text, with comments and literals removed.

mod circles;
mod modules;
mod source;

use std::path::Path;

use serde_json::Value;

use self::modules::Crate;
use self::source::code;
use crate::tool::{self, Done, cargo};

/// A crate and the workspace crates that it may use outside its tests. Nothing points back.
const ARROWS: &[(&str, &[&str])] = &[
    ("slipway-netstack", &[]),
    ("slipway-host", &["slipway-netstack"]),
    ("slipway-manual", &[]),
    ("slipway-portfwd", &["slipway-netstack", "slipway-host"]),
    ("slipway-dns", &["slipway-host", "slipway-manual"]),
    ("slipway-runtime", &["slipway-netstack", "slipway-host", "slipway-portfwd", "slipway-dns"]),
    ("slipway-uplink", &["slipway-host"]),
    ("slipway-netavark", &["slipway-netstack", "slipway-host", "slipway-manual", "slipway-uplink"]),
    (
        "slirp-compat",
        &["slipway-netstack", "slipway-host", "slipway-portfwd", "slipway-runtime", "slipway-uplink"],
    ),
    (
        "slipway-gvproxy",
        &[
            "slipway-netstack",
            "slipway-host",
            "slipway-manual",
            "slipway-portfwd",
            "slipway-dns",
            "slipway-runtime",
        ],
    ),
    (
        "slipway",
        &[
            "slipway-netstack",
            "slipway-host",
            "slipway-manual",
            "slipway-portfwd",
            "slipway-dns",
            "slipway-runtime",
            "slipway-uplink",
            "slirp-compat",
        ],
    ),
    ("slipway-lab", &[]),
    // On a fresh clone a chore stands in seconds; linked with the products it would be minutes of silence.
    ("xtask", &["slipway-lab"]),
];

/// Crates that nothing is built from: they may use everything.
const FREE: &[&str] = &["slipway-tests", "slipway-benches"];

/// A crate, what it must never meet at any depth, and with which features.
type Pure = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Pure crates.
const PURE: &[Pure] = &[
    ("slipway-netstack", &["tokio", "nix", "libc", "mio", "rustix", "socket2"], &["--all-features"]),
    // libc comes with hickory-proto, for random numbers that nobody asks it for.
    (
        "slipway-dns",
        &["tokio", "nix", "mio", "rustix", "socket2", "slipway-host"],
        &["--no-default-features"],
    ),
    // Whoever uses its sockets brings his own loop.
    ("slipway-dns", &["slipway-host", "slipway-manual"], &["--no-default-features", "--features=io"]),
    // Cryptography, and C below it, is gvproxy's alone.
    ("slipway", &["ring"], &[]),
    ("slipway-netavark", &["ring"], &[]),
];

/// The one directory with unsafe code, and the crate that it is in, which alone does not forbid it to itself.
const UNSAFE: &str = "host/src/sys/";
const SHELL: &str = "slipway-host";

/// Who sets options of sockets: the table of them there is what the filter of system calls is made from.
const OPTIONS: &[&str] = &[UNSAFE, "tests/"];

/// Who makes netlink sockets, which are all of one type (the file says why); filters of system calls name the family.
const NETLINK: &[&str] = &["host/src/netlink/raw.rs", "host/src/sandbox/"];

/// Who may ask the operating system for the time; a build script, to date what it builds.
const CLOCKS: &[&str] = &["host/", "tests/", "benches/", "xtask/", "netavark-plugin/build.rs"];

/// Who may ask for variables of the environment, beside tests and build scripts: whoever looks first whether they may
/// be believed, and `run`, for its command.
const ENVIRONMENT: &[&str] =
    &["host/src/environment.rs", "slipway/src/commands/run.rs", "tests/", "benches/", "xtask/", "fuzz/"];

/// Checks all laws and reports every breach.
pub(crate) fn check() -> Done {
    println!(
        "$ laws: crate arrows, no circles, pure crates, unsafe and setsockopt in {UNSAFE} only, variables, clocks"
    );
    let mut breaches = purity()?;
    let metadata = metadata()?;
    breaches.extend(arrows(&metadata));
    for (package, path) in roots(&metadata) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        breaches.extend(root(&package, &path, &text));
        breaches.extend(circles(&package, Path::new(&path))?);
    }
    for path in tool::files(".rs")? {
        let text = std::fs::read_to_string(tool::root().join(&path)).unwrap_or_default();
        breaches.extend(file(&path, &text));
    }
    if breaches.is_empty() {
        return Ok(());
    }
    for breach in &breaches {
        eprintln!("  {breach}");
    }
    Err(format!("{} breach(es) of the tree's laws", breaches.len()))
}

fn purity() -> Done<Vec<String>> {
    let mut breaches = Vec::new();
    for (name, impure, features) in PURE {
        let mut tree = cargo(&["tree", "--package", name]);
        let text = tool::output(
            tree.args(*features).args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]),
        )?;
        breaches.extend(met(name, impure, &text));
    }
    Ok(breaches)
}

/// What of a crate's tree of dependencies, one a line, it must not meet.
fn met(name: &str, impure: &[&str], tree: &str) -> Vec<String> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|found| impure.contains(found)).map(|found| format!("{name} depends on {found}")).collect()
}

fn metadata() -> Done<Value> {
    let text = tool::output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))
}

fn arrows(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let members: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut breaches = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(of, _)| *of == name) else {
            if !FREE.contains(&name) {
                breaches.push(format!("{name} has no place among the arrows"));
            }
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let of = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"].as_str() == Some("dev");
            if members.contains(&of) && !allowed.contains(&of) && !for_tests {
                breaches.push(format!("{name} -> {of} points the wrong way"));
            }
        }
    }
    breaches
}

/// The first files of libraries and programs, each with its package.
fn roots(metadata: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| {
        package["targets"].as_array().into_iter().flatten().map(move |target| (package, target))
    });
    let built = |target: &Value| {
        let kinds = target["kind"].as_array().into_iter().flatten();
        kinds.filter_map(Value::as_str).any(|kind| ["lib", "bin"].contains(&kind))
    };
    targets
        .filter(|(_, target)| built(target))
        .map(|(package, target)| (text(&package["name"]), text(&target["src_path"])))
        .collect()
}

/// The circles in a library or a program.
fn circles(package: &str, path: &Path) -> Done<Vec<String>> {
    let root = tool::root();
    let all = Crate::read(path.strip_prefix(&root).unwrap_or(path), |file| {
        std::fs::read_to_string(root.join(file)).ok()
    })?;
    Ok(circles::breaches(package, &all))
}

/// Whether a crate leaves itself the choice of unsafe code.
fn root(package: &str, path: &str, text: &str) -> Option<String> {
    let forbidden = code(text).contains("#![forbid(unsafe_code)]");
    (package != SHELL && !forbidden).then(|| format!("{path} does not forbid unsafe code"))
}

fn file(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (number, line) in code(text).lines().enumerate() {
        let has = |word: &str| words(line).any(|found| found == word);
        if has("unsafe") && !path.starts_with(UNSAFE) {
            breaches.push(format!("{path}:{}: unsafe outside {UNSAFE}", number + 1));
        }
        if has("setsockopt") && !OPTIONS.iter().any(|allowed| path.starts_with(allowed)) {
            breaches.push(format!("{path}:{}: sets an option of a socket outside {UNSAFE}", number + 1));
        }
        let netlink = ["AF_NETLINK", "PF_NETLINK", "netlink_sys"].into_iter().any(has)
            || line.contains("AddressFamily::Netlink");
        if netlink && !NETLINK.iter().any(|allowed| path.starts_with(allowed)) {
            breaches.push(format!(
                "{path}:{}: makes a netlink socket outside host/src/netlink/raw.rs",
                number + 1
            ));
        }
        let variable = line.contains("env::var(") || line.contains("env::var_os(");
        let free = path.ends_with("build.rs")
            || path.contains("/tests")
            || ENVIRONMENT.iter().any(|allowed| path.starts_with(allowed));
        if variable && !free {
            breaches.push(format!("{path}:{}: asks for a variable past host::environment", number + 1));
        }
        let clock = line.contains("Instant::now(") || line.contains("SystemTime::now(");
        if clock && !CLOCKS.iter().any(|allowed| path.starts_with(allowed)) {
            breaches.push(format!("{path}:{}: asks the operating system for the time", number + 1));
        }
    }
    breaches
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cargo would say if `package` had one more dependency.
    fn with_dependency(metadata: &Value, package: &str, name: &str, kind: &Value) -> Value {
        let mut metadata = metadata.clone();
        let packages = metadata["packages"].as_array_mut().unwrap();
        let package = packages.iter_mut().find(|found| found["name"] == package).unwrap();
        package["dependencies"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({ "name": name, "kind": kind }));
        metadata
    }

    #[test]
    fn a_product_linked_with_the_chores_is_found() {
        let metadata = metadata().unwrap();
        assert_eq!(arrows(&metadata), [""; 0]);
        for product in ["slipway-netstack", "slipway-host", "slipway-dns", "slipway-netavark", "slipway"] {
            for kind in [Value::Null, "build".into()] {
                let found = arrows(&with_dependency(&metadata, "xtask", product, &kind));
                assert_eq!(found, [format!("xtask -> {product} points the wrong way")]);
            }
        }
        // By way of the lab it would be as slow.
        assert_eq!(arrows(&with_dependency(&metadata, "slipway-lab", "slipway-host", &Value::Null)).len(), 1);
        assert!(arrows(&with_dependency(&metadata, "xtask", "slipway-lab", &Value::Null)).is_empty());
    }

    #[test]
    fn a_dependency_against_the_arrows_is_refused() {
        let metadata = metadata().unwrap();
        for (package, allowed) in ARROWS {
            for (name, _) in ARROWS.iter().filter(|(name, _)| name != package) {
                let found = arrows(&with_dependency(&metadata, package, name, &Value::Null));
                if allowed.contains(name) {
                    assert!(found.is_empty(), "{package} -> {name}: {found:?}");
                } else {
                    assert_eq!(found, [format!("{package} -> {name} points the wrong way")]);
                }
                assert!(
                    arrows(&with_dependency(&metadata, package, name, &"dev".into())).is_empty(),
                    "{package} {name}"
                );
            }
        }
        // And no crate uses one that stands below it in the list, so that there is no circle.
        for (at, (package, allowed)) in ARROWS.iter().enumerate() {
            for name in *allowed {
                let place = ARROWS.iter().position(|(of, _)| of == name);
                assert!(
                    place.is_some_and(|place| place < at),
                    "{name} stands below {package}, which uses it"
                );
            }
        }
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        let metadata = metadata().unwrap();
        let mut stranger = metadata.clone();
        let packages = stranger["packages"].as_array_mut().unwrap();
        packages.push(serde_json::json!({ "name": "stranger", "dependencies": [] }));
        assert_eq!(arrows(&stranger), ["stranger has no place among the arrows"]);
        for free in FREE {
            assert!(arrows(&with_dependency(&metadata, free, "slipway", &Value::Null)).is_empty());
        }
    }

    #[test]
    fn a_crate_that_may_have_unsafe_code_is_found() {
        let roots = roots(&metadata().unwrap());
        for name in [
            "slipway-runtime",
            "slipway-uplink",
            "slirp-compat",
            "slipway-gvproxy",
            "slipway",
            "slipway-lab",
            "xtask",
        ] {
            assert!(roots.iter().any(|(package, _)| package == name), "{name}");
        }
        assert_eq!(
            roots.iter().filter(|(package, _)| package == "slipway").count(),
            2,
            "library and program"
        );
        assert!(root("slipway", "slipway/src/lib.rs", "// #![forbid(unsafe_code)]").is_some());
        assert!(root("slipway", "slipway/src/lib.rs", "#![forbid(unsafe_code)]\nmod a;").is_none());
        assert!(root(SHELL, "host/src/lib.rs", "mod a;").is_none());
    }

    #[test]
    fn what_a_pure_crate_must_not_meet_is_found_at_any_depth() {
        for (name, impure, _) in PURE {
            let pure = format!("{name} v0.1.0 (/tree)\nsmoltcp v0.14.0\nbitflags v2.13.0 (*)\n");
            assert_eq!(met(name, impure, &pure), [""; 0]);
            for found in *impure {
                let tree = format!("{pure}{found} v1.0.0\n");
                assert_eq!(met(name, impure, &tree), [format!("{name} depends on {found}")]);
            }
        }
    }

    #[test]
    fn a_circle_between_files_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let of = |lines: [(&str, &str); 3]| {
            for (file, text) in lines {
                std::fs::write(dir.path().join(file), text).unwrap();
            }
            circles("x", &dir.path().join("lib.rs")).unwrap()
        };
        let lib = ("lib.rs", "mod a;\nmod b;");
        assert_eq!(of([lib, ("a.rs", "use crate::b;"), ("b.rs", "use super::a;")]).len(), 1);
        assert_eq!(of([lib, ("a.rs", "use crate::b;"), ("b.rs", "")]), [""; 0]);
        assert!(circles("x", &dir.path().join("main.rs")).is_err(), "what is not there is not good");
    }

    #[test]
    fn unsafe_is_found_outside_its_place_only() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(file("netstack/src/lib.rs", text).len(), 1);
        assert!(file("host/src/sys/tun.rs", text).is_empty());
        assert!(file("netstack/src/lib.rs", "#![forbid(unsafe_code)]").is_empty());
    }

    #[test]
    fn options_of_sockets_are_set_in_one_place() {
        let text = "nix::sys::socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;";
        assert_eq!(file("portfwd/src/listen.rs", text).len(), 1);
        assert!(file("host/src/sys/sockopt.rs", text).is_empty());
    }

    #[test]
    fn netlink_sockets_are_made_in_one_place() {
        for text in [
            "socket(AddressFamily::Netlink, SockType::Datagram, flags, None)?;",
            "libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM, 0)",
            "let socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;",
        ] {
            assert_eq!(file("host/src/netlink/monitor.rs", text).len(), 1, "{text}");
            assert!(file("host/src/netlink/raw.rs", text).is_empty());
        }
    }

    #[test]
    fn variables_are_asked_for_in_one_place() {
        let text = "std::env::var_os(NAME)";
        assert_eq!(file("netavark-plugin/src/cli.rs", text).len(), 1);
        assert!(file("host/src/environment.rs", text).is_empty());
    }

    #[test]
    fn clocks_are_found_in_the_engine() {
        let text = "let t = Instant::now();";
        assert_eq!(file("netstack/src/clock.rs", text).len(), 1);
        assert!(file("host/src/clock.rs", text).is_empty());
    }
}
