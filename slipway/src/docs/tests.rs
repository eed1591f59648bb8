//! That nothing is missing; what shells and man make of the files is tried in `tests/e2e/pages.rs`.

use super::*;
use slirp_compat::pasta::{Mode, usage};

fn page(name: &str) -> String {
    manual().files().into_iter().find(|(path, _)| path.ends_with(name)).unwrap().1
}

#[test]
fn every_option_is_on_its_page() {
    for flag in slirp_compat::slirp4netns::args::TABLE.flags.iter().filter(|flag| !flag.hidden) {
        let name = format!("\\-\\-{}", flag.long.replace('-', "\\-"));
        assert!(page("slirp4netns.1").contains(&name), "{}", flag.long);
    }
    for (mode, file) in [(Mode::Pasta, "pasta.1"), (Mode::Passt { vhost_user: false }, "passt.1")] {
        let text = page(file);
        for flag in usage::options(mode) {
            assert!(
                text.contains(&format!("\\-\\-{}", flag.long.replace('-', "\\-"))),
                "{file}: {}",
                flag.long
            );
        }
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
fn every_command_is_on_the_page_of_the_program_and_offered() {
    let (text, script) = (page("slipway.1"), page("completions/slipway"));
    for command in crate::cli::command().get_subcommands() {
        assert!(text.contains(&format!("slipway {}", command.get_name())), "{}", command.get_name());
        assert!(script.contains(&format!("    '{}')", command.get_name())), "{}", command.get_name());
    }
}
