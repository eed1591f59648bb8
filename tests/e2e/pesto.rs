//! `pesto` and `pasta`, ours and the original's, in every pair: the same words, and the same rules afterwards.
//!
//! The original comes from a tree (`peers`, or that of Podman 6) and is started by the tree's own loader, in a user and
//! network namespace of its own with nothing but a loopback.

use slipway_lab::{built, skip, tree};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is asked, one after the other; the path of the socket is added.
const ASKED: &[&str] = &[
    "",
    "-s -t 7070",
    "-s -t 7071 -t 7072 -A -t 7073 -D -t 7072",
    "-s -A -t 1001 -u 1002 -t 1003",
    "-s -u none",
    "-s -A -u 1005",
    "-s -t none -t 1009",
    "-s -A -t 1010 -t none",
    "-D -t 1234",
    "-s -D -t 1009",
    "-A -t 127.0.0.1/8080:::1/80",
    "-A -t 8080:10.0.0.1/80",
    "-A -T 8080:::1",
    "-s -A -T 8080,auto",
    "-A -U 127.0.0.1/53",
    "-s -C SPLICE -A -t 5555,5557-5560,~5558",
    "-s -D -t 5555,5557-5560,~5558",
    "-s -C HOST -t 1004 -C HOST -u 1005",
    "-C TAP",
    "-A -t ~1-65530,~65532",
    "-A -t auto:1",
    "-s -A -t 0.0.0.0/8080:10.89.0.2/80 -t [::]/8080:fd00::2/80",
    "--show --delete --tcp-ports=0.0.0.0/8080:10.89.0.2/80",
    "-A -t %lo/9000 -t %eth0/9000",
    "-A -t 9100-9110,9101-9102",
    "-A -t 0",
    "-A -t 9000:0",
    "-A -t 65536",
    "",
];

/// How a program of the original is started.
fn original(name: &str) -> Result<Vec<String>, String> {
    let root = tree("peers").or_else(|_| tree("podman-6"))?;
    let program = root.join("usr/bin").join(name);
    let loader = loader(&root).filter(|_| program.is_file());
    let loader = loader.ok_or_else(|| format!("there is no {name} in {}", root.display()))?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let libraries = loader.parent().map(text).unwrap_or_default();
    let words =
        [text(&loader), "--library-path".to_owned(), libraries, "--argv0".to_owned(), name.to_owned()];
    Ok(words.into_iter().chain([text(&program)]).collect())
}

fn loader(root: &Path) -> Option<PathBuf> {
    let dirs = std::fs::read_dir(root.join("usr/lib")).ok()?.flatten();
    let mut files = dirs.filter_map(|dir| std::fs::read_dir(dir.path()).ok()).flatten().flatten();
    let found = files.find(|file| file.file_name().to_string_lossy().starts_with("ld-linux"))?;
    Some(found.path())
}

/// How ours is started: by a link of its name.
fn ours(name: &str, dir: &Path) -> Result<Vec<String>, String> {
    let link = dir.join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(built("SLIPWAY_E2E_BINARY", "slipway")?, &link)
            .map_err(|error| error.to_string())?;
    }
    Ok(vec![link.to_string_lossy().into_owned()])
}

/// Words for a shell.
fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

/// Everything that `pesto` says to a fresh `pasta`, with the exit codes.
fn conversation(pasta: &[String], pesto: &[String], dir: &Path) -> Result<String, String> {
    let socket = dir.join("socket");
    let asked: String = ASKED.iter().map(|words| format!("ask {words}\n")).collect();
    let script = format!(
        "ip link set lo up || exit 9
        echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start || exit 9
        {pasta} -f -c '{socket}' -t 8080 -u 5300 -T 9090 -U none -- sleep 60 > '{log}' 2>&1 &
        for i in $(seq 200); do {pesto} '{socket}' > /dev/null 2>&1 && break; sleep 0.05; done
        ask() {{ echo \"pesto $*\"; {pesto} \"$@\" '{socket}' 2>&1; echo \"code $?\"; }}
        set -f
        {asked}
        kill $!",
        pasta = quoted(pasta),
        pesto = quoted(pesto),
        socket = socket.display(),
        log = dir.join("log").display(),
    );
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", &script]);
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let _ = std::fs::remove_file(socket);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    if said.contains("passt/pasta configuration") {
        Ok(said)
    } else {
        Err(format!("{}{said}{log}", String::from_utf8_lossy(&output.stderr)))
    }
}

#[test]
fn pesto_says_to_the_originals_pasta_what_the_originals_does() {
    const TEST: &str = "pesto_says_to_the_originals_pasta_what_the_originals_does";
    let dir = tempfile::tempdir().unwrap();
    let programs = (original("pasta"), original("pesto"), ours("pesto", dir.path()));
    let (pasta, theirs, ours) = match programs {
        (Ok(pasta), Ok(theirs), Ok(ours)) => (pasta, theirs, ours),
        (Err(reason), ..) | (_, Err(reason), _) | (.., Err(reason)) => {
            skip::<()>(TEST, &reason);
            return;
        }
    };
    match conversation(&pasta, &theirs, dir.path()) {
        Err(reason) => {
            skip::<()>(TEST, &reason);
        }
        Ok(theirs) => assert_eq!(conversation(&pasta, &ours, dir.path()).unwrap(), theirs),
    }
}

#[test]
fn our_pasta_answers_both_as_the_original_does() {
    const TEST: &str = "our_pasta_answers_both_as_the_original_does";
    let dir = tempfile::tempdir().unwrap();
    let programs = (original("pasta"), original("pesto"));
    let (pasta, theirs) = match programs {
        (Ok(pasta), Ok(theirs)) => (pasta, theirs),
        (Err(reason), _) | (_, Err(reason)) => {
            skip::<()>(TEST, &reason);
            return;
        }
    };
    let own = ours("pasta", dir.path()).and_then(|pasta| Ok((pasta, ours("pesto", dir.path())?)));
    let (own_pasta, own_pesto) = match own {
        Ok(own) => own,
        Err(reason) => {
            skip::<()>(TEST, &reason);
            return;
        }
    };
    let expected = match conversation(&pasta, &theirs, dir.path()) {
        Ok(expected) => expected,
        Err(reason) => {
            skip::<()>(TEST, &reason);
            return;
        }
    };
    for pesto in [theirs, own_pesto] {
        assert_eq!(conversation(&own_pasta, &pesto, dir.path()).unwrap(), expected, "{pesto:?}");
    }
}

#[test]
fn where_another_pasta_answers_a_second_one_does_not_start() {
    const TEST: &str = "where_another_pasta_answers_a_second_one_does_not_start";
    let dir = tempfile::tempdir().unwrap();
    let pasta = match ours("pasta", dir.path()) {
        Ok(pasta) => quoted(&pasta),
        Err(reason) => {
            skip::<()>(TEST, &reason);
            return;
        }
    };
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (conf, control, log) = (path("conf"), path("control"), path("log"));
    let none = "-t none -u none -T none -U none";
    // What a killed one left behind is no obstacle.
    std::fs::write(&conf, "").unwrap();
    let script = format!(
        "ip link set lo up || exit 9
        {pasta} -f -c '{conf}' --control '{control}' {none} -- sleep 60 > '{log}' 2>&1 &
        for i in $(seq 200); do [ -S '{control}' ] && break; sleep 0.05; done
        for option in -c --control; do
            [ $option = -c ] && path='{conf}' || path='{control}'
            {pasta} -q -f $option \"$path\" {none} -- true 2>&1; echo \"code $?\"
        done
        kill $!"
    );
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "--user", "--map-root-user", "--net", "sh", "-c", &script]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !Path::new(&control).exists() {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        skip::<()>(TEST, &format!("{said}{}{log}", String::from_utf8_lossy(&output.stderr)));
        return;
    }
    let refused = |path: &str| format!("Socket path {path} already in use\ncode 1\n");
    assert_eq!(said, refused(&conf) + &refused(&control));
}
