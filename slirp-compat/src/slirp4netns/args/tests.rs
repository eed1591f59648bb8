use super::*;

fn run(line: &[&str]) -> (Vec<String>, Result<LowArgs, Stop>) {
    let args: Vec<_> = line.iter().map(OsString::from).collect();
    let mut notices = Vec::new();
    let result = parse("slirp4netns", &args, &mut notices, &|path| path == Path::new("/there"));
    (notices, result)
}

fn complaint(line: &[&str]) -> String {
    match run(line).1 {
        Err(Stop::Usage(Some(text))) => text,
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn podman_and_rootlesskit_are_understood() {
    let (notices, low) = run(&[
        "--disable-host-loopback",
        "--mtu=65520",
        "--enable-sandbox",
        "--enable-seccomp",
        "--enable-ipv6",
        "-c",
        "-r",
        "3",
        "-e",
        "4",
        "--netns-type=path",
        "/run/user/1000/netns/netns-1",
        "tap0",
    ]);
    let low = low.unwrap();
    assert!(low.disable_host_loopback && low.sandbox && low.seccomp && low.ipv6 && low.configure);
    assert_eq!((low.mtu, low.ready_fd, low.exit_fd), (65520, Some(3), Some(4)));
    assert_eq!(low.netns_type.unwrap(), "path");
    assert_eq!(low.positionals, ["/run/user/1000/netns/netns-1", "tap0"]);
    assert_eq!(
        notices,
        ["WARNING: Support for seccomp is experimental", "WARNING: Support for IPv6 is experimental"]
    );

    let low = run(&["--mtu", "65520", "-r", "3", "--api-socket", "/s/.s4nn.sock", "12", "tap0"]).1.unwrap();
    assert_eq!(low.api_socket.unwrap(), Path::new("/s/.s4nn.sock"));
    assert_eq!(low.positionals, ["12", "tap0"]);
}

#[test]
fn the_last_one_wins() {
    let low = run(&["--mtu=1", "-m", "2", "--cidr=a", "--cidr", "b", "-cc", "--mt=3"]).1.unwrap();
    assert_eq!((low.mtu, low.cidr.unwrap().to_str()), (3, Some("b")));
}

#[test]
fn numbers_are_read_to_the_end() {
    for bad in ["", "x", "-1", "3x", "99999999999", "0x3", "3 "] {
        assert_eq!(complaint(&["-e", bad]), "exit-fd must be a non-negative integer");
        assert_eq!(complaint(&["-r", bad]), "ready-fd must be a non-negative integer");
    }
    for bad in ["", "0", "-5", "65522", "1500x", "99999999999999999999"] {
        assert_eq!(complaint(&["--mtu", bad]), "MTU must be a positive integer (< 65522)");
    }
    for (text, value) in [("1", 1), ("65521", 65521), ("+68", 68), (" 68", 68), ("0068", 68)] {
        assert_eq!(run(&["-m", text]).1.unwrap().mtu, value);
    }
    assert_eq!(run(&["-e0", "-r", "+7"]).1.unwrap().ready_fd, Some(7));
}

#[test]
fn the_first_mistake_is_the_one_reported() {
    assert_eq!(complaint(&["--bogus", "--help"]), "slirp4netns: unrecognized option '--bogus'");
    assert_eq!(run(&["--help", "--bogus"]).1, Err(Stop::Help));
    assert_eq!(run(&["-cvx"]).1, Err(Stop::Version));
    assert_eq!(complaint(&["-e", "x", "--mtu=0"]), "exit-fd must be a non-negative integer");
    assert_eq!(complaint(&["--userns-path=/not", "-h"]), "userns path doesn't exist: /not");
    assert!(run(&["--userns-path=/there"]).1.is_ok());
}

#[test]
fn warnings_come_in_the_order_typed_and_before_a_failure() {
    let (notices, result) =
        run(&["--outbound-addr6=::1", "--no-host-loopback", "--create-sandbox", "-6", "-x"]);
    assert!(result.is_err());
    assert_eq!(
        notices,
        [
            "WARNING: Support for --outbound-addr6 is experimental",
            "WARNING: --no-host-loopback is deprecated, use --disable-host-loopback instead",
            "WARNING: --create-sandbox is deprecated, use --enable-sandbox instead",
            "WARNING: Support for IPv6 is experimental",
        ]
    );
    let low = run(&["--no-host-loopback", "--create-sandbox"]).1.unwrap();
    assert!(low.disable_host_loopback && low.sandbox);
}

#[test]
fn every_prefix_that_is_unique_names_its_option() {
    let longs: Vec<_> = TABLE.flags.iter().map(|flag| (flag.key, flag.long)).collect();
    for (key, long) in &longs {
        for end in 1..=long.len() {
            let prefix = &long[..end];
            let rivals = longs.iter().any(|(other, name)| other != key && name.starts_with(prefix));
            let exact = longs.iter().any(|(_, name)| *name == prefix);
            let args = [OsString::from(format!("--{prefix}")), OsString::from("1")];
            let first = Getopt::new(TABLE.flags, Order::Permute, &args).next().unwrap();
            match first {
                Ok(Item::Flag(flag, _)) => assert!(flag.key == *key || exact, "{prefix}"),
                Err(_) => assert!(rivals && !exact, "{prefix}"),
                Ok(Item::Positional(_)) => panic!("{prefix}"),
            }
        }
    }
}
