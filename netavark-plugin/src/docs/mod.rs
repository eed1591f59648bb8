//! Man pages and completions of `netavark` and of `slipway net`, which is the same program under another name.

mod net;
mod netavark;

use crate::cli::Cli;
use crate::net::cli::Cli as NetCli;
use clap::CommandFactory as _;
use slipway_manual::Manual;
use slipway_manual::complete::{Below, Completion, Then};
use slipway_manual::model::commands_of_command;

/// What this program has to say of itself.
#[must_use]
pub(crate) fn manual() -> Manual {
    let (netavark, net) = (netavark::page(), net::page(&built(NetCli::command())));
    let below = commands_of_command(&built(Cli::command()));
    let completion = Completion {
        below: below.into_iter().map(|sub| Below { sub, then: Then::Files }).collect(),
        ..Completion::of_page(&netavark)
    };
    Manual { completions: vec![completion, Completion::of_page(&net)], pages: vec![netavark, net] }
}

/// With what clap itself adds: `--help`, and global options at each sub-command.
fn built(mut command: clap::Command) -> clap::Command {
    command.build();
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &str) -> String {
        let files = manual().files();
        files.into_iter().find(|(path, _)| path.ends_with(name)).unwrap().1
    }

    #[test]
    fn every_option_of_the_dhcp_proxy_is_on_the_page() {
        let text = page("netavark.8");
        let command = Cli::command();
        let proxy = command.find_subcommand("dhcp-proxy").unwrap();
        for option in proxy.get_arguments().filter(|option| option.get_id() != "help") {
            let (short, long) = (option.get_short().unwrap(), option.get_long().unwrap().replace('-', "\\-"));
            assert!(text.contains(&format!("\\-{short}, \\-\\-{long}")), "{long}");
            let default =
                option.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
            assert!(default.is_none_or(|value| text.contains(&format!("Default: {value}"))), "{long}");
        }
    }

    #[test]
    fn every_option_of_slipway_net_is_on_its_page() {
        let text = page("slipway-net.1");
        for command in
            built(NetCli::command()).get_subcommands().filter(|command| command.get_name() != "help")
        {
            assert!(text.contains(&format!("slipway net {}", command.get_name())), "{}", command.get_name());
            for long in command.get_opts().filter_map(|option| option.get_long()) {
                assert!(text.contains(&format!("\\-\\-{}", long.replace('-', "\\-"))), "{long}");
            }
        }
    }
}
