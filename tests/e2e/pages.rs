//! Man pages and completions, as the built programs write them when they are called `slipway-pages`: what `man` and the
//! shells make of them.

use slipway_lab::{built, skip};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const PROGRAMS: [(&str, &str); 4] = [
    ("SLIPWAY_E2E_BINARY", "slipway"),
    ("SLIPWAY_NETAVARK_BINARY", "netavark"),
    ("SLIPWAY_AARDVARK_BINARY", "aardvark-dns"),
    ("SLIPWAY_GVPROXY_BINARY", "slipway-gvproxy"),
];

const PAGES: [&str; 13] = [
    "man1/gvforwarder.1",
    "man1/gvproxy.1",
    "man1/passt.1",
    "man1/pasta.1",
    "man1/pesto.1",
    "man1/slipway-attach.1",
    "man1/slipway-net.1",
    "man1/slipway-run.1",
    "man1/slipway-uplink.1",
    "man1/slipway.1",
    "man1/slirp4netns.1",
    "man8/aardvark-dns.8",
    "man8/netavark.8",
];

/// The directory that all of them have written; `None` after saying why the test is skipped.
fn written(test: &str) -> Option<TempDir> {
    let share = tempfile::tempdir().unwrap();
    for (variable, name) in PROGRAMS {
        let program = match built(variable, name) {
            Ok(program) => program,
            Err(reason) => return skip(test, &reason),
        };
        if std::env::var_os(variable).is_some() && !program.ends_with(name) {
            println!("SKIP {test}: the original writes no pages");
            return None;
        }
        let output = Command::new(&program).arg0("slipway-pages").arg(share.path()).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{name}");
    }
    Some(share)
}

/// The files of a directory below `share`.
fn files(share: &TempDir, dir: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(share.path().join(dir)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs `program`, if it is installed, with a text to read; gives whether it was content, and what it said on both
/// streams.
fn fed(test: &str, program: &str, args: &[&str], input: &str) -> Option<(bool, String, String)> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("SKIP {test}: {program} is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some((output.status.success(), text(&output.stdout), text(&output.stderr)))
}

/// The text of a page, in which a hyphen is written as `\-`, bold as `\fB..\fR`.
fn plain(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap().replace("\\fB", "").replace("\\fR", "").replace('\\', "")
}

#[test]
fn every_command_has_its_page_and_is_offered() {
    let test = "every_command_has_its_page_and_is_offered";
    let Some(share) = written(test) else { return };
    let program = plain(&share.path().join("man/man1/slipway.1"));
    for command in slipway::cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(program.contains(&format!("slipway {name}")), "{name} is not on the page of the program");
        for script in [
            "bash-completion/completions/slipway",
            "zsh/site-functions/_slipway",
            "fish/vendor_completions.d/slipway.fish",
        ] {
            let script = std::fs::read_to_string(share.path().join(script)).unwrap();
            assert!(
                script.split(|c: char| !c.is_alphanumeric()).any(|word| word == name),
                "{name} is not offered"
            );
        }
        // Its one line is said there.
        if name == "version" {
            continue;
        }
        let own = [format!("slipway-{name}"), name.to_owned()];
        let page = own.iter().find(|page| PAGES.contains(&format!("man1/{page}.1").as_str()));
        let page = page.unwrap_or_else(|| panic!("{name} has no page"));
        assert!(share.path().join(format!("man/man1/{page}.1")).is_file(), "{page}");
        assert!(program.contains(&format!("{page}(1)")), "slipway(1) does not refer to {page}");
    }
}

#[test]
fn man_reads_every_page_without_a_warning() {
    let test = "man_reads_every_page_without_a_warning";
    let Some(share) = written(test) else { return };
    let pages = [files(&share, "man/man1"), files(&share, "man/man8")].concat();
    let places: Vec<_> =
        pages.iter().map(|page| page.strip_prefix(share.path().join("man")).unwrap()).collect();
    assert_eq!(places, PAGES.map(Path::new));
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let args = ["-man", "-Tascii", "-ww", "-z"];
        let Some((good, _, complaints)) = fed(test, "groff", &args, &text) else { return };
        assert!(good && complaints.is_empty(), "{}: {complaints}", page.display());
    }
}

#[test]
fn the_pages_refer_to_no_page_of_ours_that_is_not_there() {
    let Some(share) = written("the_pages_refer_to_no_page_of_ours_that_is_not_there") else { return };
    for page in [files(&share, "man/man1"), files(&share, "man/man8")].concat() {
        let text = plain(&page);
        for word in text.split(|c: char| c.is_whitespace() || c == ',' || c == ';') {
            let Some((name, section)) = word.split_once('(') else { continue };
            let section = section.split(')').next().unwrap_or_default();
            if name == "slipway" || name.starts_with("slipway-") {
                let file = format!("man{section}/{name}.{section}");
                assert!(PAGES.contains(&file.as_str()), "{}: {word}", page.display());
            }
        }
    }
}

#[test]
fn shells_accept_their_completions() {
    let test = "shells_accept_their_completions";
    let Some(share) = written(test) else { return };
    let shells = [
        ("bash", "bash-completion/completions"),
        ("zsh", "zsh/site-functions"),
        ("fish", "fish/vendor_completions.d"),
    ];
    for (shell, dir) in shells {
        let scripts = files(&share, dir);
        assert_eq!(scripts.len(), 10, "{scripts:?}");
        for script in scripts {
            let Some((good, _, complaints)) = fed(test, shell, &["-n", &script.to_string_lossy()], "") else {
                break;
            };
            assert!(good, "{}: {complaints}", script.display());
        }
    }
}

/// What bash would offer for the last word of `line`.
fn offered_by_bash(share: &TempDir, line: &str) -> Vec<String> {
    let command = line.split(' ').next().unwrap();
    let script = share.path().join("bash-completion/completions").join(command);
    let words = line.split(' ').map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let last = line.split(' ').count() - 1;
    let function = command.replace('-', "_");
    let input = format!(
        ". {}\nCOMP_WORDS=({words})\nCOMP_CWORD={last}\n_{function}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        script.display()
    );
    let (_, stdout, stderr) = fed("bash", "bash", &[], &input).unwrap();
    assert!(stderr.is_empty(), "{line}: {stderr}");
    stdout.lines().map(str::to_owned).collect()
}

#[test]
fn bash_offers_what_fits() {
    let Some(share) = written("bash_offers_what_fits") else { return };
    let offered = |line: &str| offered_by_bash(&share, line);
    assert_eq!(offered("slipway a"), ["attach"]);
    assert_eq!(offered("slipway n"), ["net"]);
    assert_eq!(offered("slipway pas"), ["pasta", "passt"]);
    assert_eq!(offered("slipway pesto --de"), ["--delete", "--debug"]);
    assert_eq!(offered("pesto -C S"), ["SPLICE"]);
    assert_eq!(offered("pasta --map-g"), ["--map-guest-addr"]);
    assert_eq!(offered("passt --soc"), ["--socket"]);
    assert_eq!(offered("pasta --interface lo"), ["lo"]);
    assert_eq!(offered("slipway pasta --net"), ["--netmask", "--netns", "--netns-only"]);
    assert_eq!(offered("slipway slirp4netns --mt"), ["--mtu"]);
    assert!(offered("slipway run --pu").contains(&"--publish".to_owned()));
    assert!(offered("slipway attach --pid").contains(&"--pid-file".to_owned()));
    assert_eq!(offered("slipway uplink --sh"), ["--show"]);
    assert_eq!(offered("slirp4netns --netns-type t"), ["tapfd"]);
    assert_eq!(offered("slirp4netns --dis"), ["--disable-host-loopback", "--disable-dns"]);
    assert_eq!(offered("slirp4netns --outbound-addr lo"), ["lo"]);
    assert_eq!(offered("netavark te"), ["teardown"]);
    assert_eq!(offered("netavark dhcp-proxy --act"), ["--activity-timeout"]);
    assert_eq!(offered("netavark --fire"), ["--firewall-driver"]);
    // The script of the other program.
    assert_eq!(offered("slipway net d"), ["down"]);
    assert_eq!(offered("slipway net up --publ"), ["--publish"]);
    assert_eq!(offered("slipway net --stat"), ["--state"]);
}

#[test]
fn fish_offers_what_fits() {
    let test = "fish_offers_what_fits";
    let Some(share) = written(test) else { return };
    let script = share.path().join("fish/vendor_completions.d/slipway.fish");
    for (line, word) in
        [("slipway n", "net"), ("slipway net d", "down"), ("slipway net up --publ", "--publish")]
    {
        let input = format!("source {}; complete -C '{line}'", script.display());
        let Some((_, stdout, stderr)) = fed(test, "fish", &["--no-config", "-c", &input], "") else { return };
        let words: Vec<_> = stdout.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!((words, stderr.as_str()), (vec![word], ""), "{line}");
    }
}

#[test]
fn no_program_takes_the_chore_for_a_word_of_its_own() {
    let test = "no_program_takes_the_chore_for_a_word_of_its_own";
    for (variable, name) in PROGRAMS {
        let program = match built(variable, name) {
            Ok(program) => program,
            Err(reason) => return skip(test, &reason).unwrap_or_default(),
        };
        let help = Command::new(&program).arg("--help").output().unwrap();
        assert!(!String::from_utf8_lossy(&help.stdout).contains("pages"), "{name}");
        // Go's programs take no notice of words behind their flags: that one would start.
        if name != "slipway-gvproxy" {
            let output = Command::new(&program).args(["pages", "/nonexistent"]).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{name}");
        }
        // And by its name it is told what is missing.
        let output = Command::new(&program).arg0("slipway-pages").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage: slipway-pages DIR"), "{name}");
    }
}
