use super::*;
use std::process::{Command, Stdio};

/// Runs `program` with `input` on stdin, if it is installed, and gives back stdout and stderr.
fn filter(test: &str, program: &str, args: &[&str], input: &str) -> Option<(bool, String, String)> {
    use std::io::Write as _;
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("SKIP {test}: {program} is not installed");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some((output.status.success(), text(&output.stdout), text(&output.stderr)))
}

fn page(name: &str) -> String {
    pages().into_iter().find(|(file, _)| file == name).unwrap().1
}

#[test]
fn every_command_has_a_page() {
    let names: Vec<_> = pages().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["slipway.1", "slipway-run.1", "slipway-attach.1", "slipway-uplink.1", "slirp4netns.1"]
    );
}

#[test]
fn every_option_is_on_its_page() {
    for flag in crate::slirp4netns::args::TABLE.flags.iter().filter(|flag| !flag.hidden) {
        let name = format!("\\-\\-{}", flag.long.replace('-', "\\-"));
        assert!(page("slirp4netns.1").contains(&name), "{}", flag.long);
    }
    for (command, file) in
        [("run", "slipway-run.1"), ("attach", "slipway-attach.1"), ("uplink", "slipway-uplink.1")]
    {
        let command = crate::cli::command().find_subcommand(command).unwrap().clone();
        let text = page(file);
        for long in command.get_opts().filter_map(|option| option.get_long()) {
            assert!(text.contains(&format!("\\-\\-{}", long.replace('-', "\\-"))), "{file}: {long}");
        }
    }
}

#[test]
fn no_line_of_text_is_taken_for_a_request() {
    let known = [".TH", ".SH", ".TP", ".PP", ".RS", ".RE", ".EX", ".EE", ".br"];
    for (name, text) in pages() {
        for line in text.lines().filter(|line| line.starts_with(['.', '\''])) {
            assert!(known.iter().any(|request| line.starts_with(request)), "{name}: {line}");
        }
    }
}

#[test]
fn man_reads_the_pages_without_a_warning() {
    for (name, text) in pages() {
        let args = ["-man", "-Tascii", "-ww", "-z"];
        let Some((good, _, complaints)) = filter("man pages", "groff", &args, &text) else { return };
        assert!(good && complaints.is_empty(), "{name}: {complaints}");
    }
}

#[test]
fn shells_accept_their_completions() {
    for shell in Shell::ALL {
        let (program, args) = match shell {
            Shell::Bash => ("bash", ["-n", "/dev/stdin"]),
            Shell::Zsh => ("zsh", ["-n", "/dev/stdin"]),
            Shell::Fish => ("fish", ["-n", "/dev/stdin"]),
        };
        for (name, text) in completions(shell) {
            if let Some((good, _, complaints)) = filter("completions", program, &args, &text) {
                assert!(good, "{name}: {complaints}");
            }
        }
    }
}

/// What bash would offer for the last word of `line`.
fn offered(line: &str) -> Option<Vec<String>> {
    let command = line.split(' ').next().unwrap();
    let script = completions(Shell::Bash).into_iter().find(|(name, _)| name == command).unwrap().1;
    let words = line.split(' ').map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let last = line.split(' ').count() - 1;
    let input = format!(
        "{script}\nCOMP_WORDS=({words})\nCOMP_CWORD={last}\n_{command}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    );
    let (_, stdout, stderr) = filter("bash completion", "bash", &[], &input)?;
    assert!(stderr.is_empty(), "{stderr}");
    Some(stdout.lines().map(str::to_owned).collect())
}

#[test]
fn bash_offers_what_fits() {
    let Some(first) = offered("slipway a") else { return };
    assert_eq!(first, ["attach"]);
    assert_eq!(offered("slipway slirp4netns --mt").unwrap(), ["--mtu"]);
    assert!(offered("slipway run --pu").unwrap().contains(&"--publish".to_owned()));
    assert!(offered("slipway attach --pid").unwrap().contains(&"--pid-file".to_owned()));
    assert_eq!(offered("slipway uplink --sh").unwrap(), ["--show"]);
    assert_eq!(offered("slirp4netns --netns-type t").unwrap(), ["tapfd"]);
    assert_eq!(offered("slirp4netns --dis").unwrap(), ["--disable-host-loopback", "--disable-dns"]);
    assert_eq!(offered("slirp4netns --outbound-addr lo").unwrap(), ["lo"]);
}
