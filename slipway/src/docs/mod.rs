//! Man pages and completions of `slipway` and of the names it answers to.

pub mod pages;
mod pasta;

use slipway_manual::Manual;
use slipway_manual::complete::{Below, Completion, Then};
use slipway_manual::model::{Offer, Opt, SubCommand, commands_of_command};
use slirp_compat::flags::table::{Complete, Flag, Table};

/// What this program has to say of itself.
#[must_use]
pub fn manual() -> Manual {
    let page = pages::slipway();
    let roles = [pages::slirp4netns(), pasta::pasta(), pasta::passt(), pasta::pesto()];
    let all: Vec<_> = [pages::run(), pages::attach(), pages::uplink()].into_iter().chain(roles).collect();
    // The drop-in names are sub-commands too.
    let own = all.iter().map(|page| {
        let then = if matches!(page.word(), "run" | "pasta") { Then::Command } else { Then::Files };
        Below::of_page(page, then)
    });
    let version = commands_of_command(&crate::cli::command()).into_iter().filter(|sub| sub.word == "version");
    let version = version.map(|sub| Below { sub, then: Then::Files });
    let slipway =
        Completion { below: own.chain(elsewhere()).chain(version).collect(), ..Completion::of_page(&page) };
    // Their names are programs, too: links to this one.
    let roles = all.iter().filter(|page| page.name == page.command).map(Completion::of_page);
    Manual {
        completions: roles.chain([slipway]).collect(),
        pages: [page].into_iter().chain(all.iter().cloned()).collect(),
    }
}

/// The sub-command of another program, which has the page and the script of it.
fn elsewhere() -> Option<Below> {
    let command = crate::cli::command();
    let net = command.find_subcommand("net")?;
    let about = net.get_about().map(ToString::to_string).unwrap_or_default();
    let sub = SubCommand { word: net.get_name().to_owned(), about, options: Vec::new() };
    Some(Below { sub, then: Then::Script })
}

/// The options of a drop-in personality.
#[must_use]
pub fn options_of_table<K>(table: &Table<K>) -> Vec<Opt> {
    options_of(table.flags.iter().filter(|flag| !flag.hidden))
}

/// The same of some of its options.
fn options_of<'a, K: 'static>(flags: impl Iterator<Item = &'a Flag<K>>) -> Vec<Opt> {
    let options = flags.map(|flag| Opt {
        short: flag.short.map(char::from),
        long: Some(flag.long.to_owned()),
        value: flag.value.map(str::to_owned),
        offer: match flag.complete {
            Complete::Nothing => Offer::Nothing,
            Complete::File => Offer::File,
            Complete::Interface => Offer::Interface,
            Complete::Words(words) => Offer::Words(words.iter().map(|word| (*word).to_owned()).collect()),
        },
        help: flag.help.to_owned(),
        default: flag.default.map(str::to_owned),
        more: flag.more.to_owned(),
    });
    options.collect()
}

#[cfg(test)]
mod tests;
