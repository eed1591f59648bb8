//! The chore as a whole; what shells and man make of the files is tried in `tests/e2e/pages.rs`.

use super::*;
use clap::{Arg, Command};
use complete::{Below, Then};
use model::{Block, commands_of_command, options_of_command};

fn command() -> Command {
    let mount =
        Command::new("mount").about("It's [so]: one").arg(Arg::new("size").long("size").value_name("N"));
    let mut command = Command::new("tool").subcommand(mount).subcommand(Command::new("secret").hide(true));
    command.build();
    command
}

fn manual() -> Manual {
    let command = command();
    let page = Page {
        name: "tool",
        section: 8,
        command: "tool",
        about: "does things",
        synopsis: vec!["mount".into()],
        description: &[Block::Text(".starts with a dot"), Block::Code("'quoted\n-x \\n")],
        options: options_of_command(&command),
        commands: commands_of_command(&command),
        sections: &[],
        see_also: &["tool-far(1)"],
    };
    let mut completion = Completion::of_page(&page);
    let far = model::SubCommand { word: "far".into(), about: "elsewhere".into(), options: Vec::new() };
    completion.below.push(Below { sub: far, then: Then::Script });
    Manual { completions: vec![completion], pages: vec![page] }
}

#[test]
fn every_file_has_its_place() {
    let places: Vec<_> = manual().files().into_iter().map(|(path, _)| path.display().to_string()).collect();
    assert_eq!(
        places,
        [
            "man/man8/tool.8",
            "bash-completion/completions/tool",
            "zsh/site-functions/_tool",
            "fish/vendor_completions.d/tool.fish"
        ]
    );
}

#[test]
fn what_is_hidden_is_nowhere_and_what_is_seen_everywhere() {
    for (path, text) in manual().files() {
        assert!(!text.contains("secret"), "{}", path.display());
        assert!(text.replace('\\', "").contains("size"), "{}", path.display());
    }
}

#[test]
fn an_option_of_all_is_described_once() {
    let (_, text) = manual().files().swap_remove(0);
    assert_eq!(text.matches("\\-\\-help").count(), 1, "{text}");
    assert!(text.contains(".SH \"OPTIONS OF MOUNT\"\n.TP\n\\fB\\-\\-size"), "{text}");
}

#[test]
fn no_line_of_text_is_taken_for_a_request() {
    let known = [".TH", ".SH", ".TP", ".PP", ".RS", ".RE", ".EX", ".EE", ".br"];
    let (_, text) = manual().files().swap_remove(0);
    assert!(text.contains("\\&.starts") && text.contains("\\&'quoted\n\\-x \\en"), "{text}");
    for line in text.lines().filter(|line| line.starts_with(['.', '\''])) {
        assert!(known.iter().any(|request| line.starts_with(request)), "{line}");
    }
}

#[test]
fn the_files_are_written_and_a_place_that_will_not_do_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let main = |dir: &Path| format!("{:?}", manual().main(&[dir.into()]));
    assert_eq!(main(&dir.path().join("new")), format!("{:?}", ExitCode::SUCCESS));
    let page = std::fs::read_to_string(dir.path().join("new/man/man8/tool.8")).unwrap();
    assert_eq!(page, roff::write(&manual().pages[0]));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(main(&file), format!("{:?}", ExitCode::FAILURE));
    assert_eq!(format!("{:?}", manual().main(&[])), format!("{:?}", ExitCode::from(2)));
}
