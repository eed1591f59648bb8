//! Developer chores, in Rust so that the tree has no sprawl of scripts.
//!
//! `demo` and `test` are the two commands of the README: they install what is missing and then do everything. The
//! others are their parts, or are for people who package or measure. Each file here is one chore; `tool` holds what
//! they share.

#![forbid(unsafe_code)]

mod bench;
mod demo;
mod deps;
mod fuzz;
mod install;
mod instructions;
mod iperf;
mod laws;
mod lint;
mod papers;
mod proto;
mod release;
mod test;
mod tool;
mod trees;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer chores of slipway")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install the Debian packages that the suites use and fetch newer Podmans (as root), or print the command that
    /// installs.
    Deps,
    /// Build, then show the main job live: a container's network, without root and without outside network.
    Demo,
    /// Lint, then run every suite. This is what CI runs.
    Test {
        /// Run the suites only.
        #[arg(long)]
        no_lint: bool,
        /// The programs as shipped, too, are put through everything, not through a row for each command.
        #[arg(long)]
        all: bool,
    },
    /// Format, clippy, licences, the structural laws of the tree, and what its papers say.
    Lint,
    /// Only whether what documents and comments say of the tree is so; seconds, without building anything.
    Docs,
    /// Measure against the peers, interleaved, and print the table.
    Bench {
        /// Which parts; all of them without this.
        parts: Vec<bench::Part>,
        /// Rows over a link with loss and length instead of the parts; `all` prints more of them.
        #[arg(long, num_args = 0..=1, default_missing_value = "goals", conflicts_with = "parts")]
        weather: Option<bench::Sky>,
        /// Rounds; every subject runs once in each. Without this five, and two of the weather.
        #[arg(long)]
        rounds: Option<usize>,
        /// Of the stack, of gvproxy and of passt, only the rows of this group; may be given more than once.
        #[arg(long)]
        group: Vec<bench::Group>,
        /// Of the stack, of gvproxy and of passt, only the rows whose name contains this; may be given more than once.
        #[arg(long)]
        only: Vec<String>,
        /// Of the stack, only this subject; may be given more than once.
        #[arg(long)]
        subject: Vec<bench::Subject>,
        /// Of the stack, the name that ours answers to, and whose command line it takes.
        #[arg(long, value_enum, default_value_t)]
        role: bench::Role,
        /// Measure this binary as the stack instead of building one.
        #[arg(long)]
        binary: Option<PathBuf>,
        /// Measure this binary, too, in a column of its own: what ours is to be compared with.
        #[arg(long)]
        before: Option<PathBuf>,
        /// Put the tables and charts into docs/performance.md, or the counts of instructions into
        /// benches/instructions/counts.txt.
        #[arg(long, conflicts_with_all = ["only", "subject", "before"])]
        write: bool,
        /// Count the engine's instructions instead, which needs valgrind and no quiet machine: fails when they have
        /// grown.
        #[arg(long, conflicts_with_all = ["parts", "weather", "group", "only", "subject", "binary", "before"])]
        instructions: bool,
        /// What was built: for the child that measures.
        #[arg(long, hide = true)]
        prepared: Option<String>,
    },
    /// Fuzz every target in turn, on all cores, within bounds of memory and time; what breaks one is made shorter and
    /// put among the seeds. Needs the nightly compiler and cargo-fuzz.
    Fuzz {
        /// Which targets; all of them without this.
        targets: Vec<String>,
        /// How long each.
        #[arg(long, default_value_t = 5.0, value_parser = minutes)]
        minutes: f64,
        /// Put the table into docs/fuzzing.md, and add up the hours there.
        #[arg(long)]
        write: bool,
        /// With AddressSanitizer, which costs nine tenths of the speed.
        #[arg(long)]
        address: bool,
    },
    /// Release build into DIR: programs, the names they answer to, man pages, completions, systemd units.
    Install {
        /// The directory that gets bin/, lib/ and share/.
        #[arg(long)]
        prefix: PathBuf,
    },
    /// Build for release here and from a copy in another place, and demand the same bytes.
    Reproducible,
    /// Write the code of the DHCP proxy's messages from their .proto file.
    Proto {
        /// Only say whether it is up to date.
        #[arg(long)]
        check: bool,
    },
    /// Have the programs write their man pages and completions into target/share.
    Man,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Deps => deps::ensure(deps::ALL).inspect(|()| trees::ensure()),
        Chore::Demo => demo::run(),
        Chore::Test { no_lint, all } => test::run(!no_lint, all),
        Chore::Lint => lint::run(),
        Chore::Docs => papers::check(),
        Chore::Bench { instructions: true, write, .. } => instructions::run(write),
        Chore::Bench {
            parts,
            weather,
            rounds,
            group,
            only,
            subject,
            role,
            binary,
            before,
            write,
            instructions: false,
            prepared,
        } => bench::run(&bench::Wish {
            parts,
            weather,
            // What is far takes its time.
            rounds: rounds.unwrap_or_else(|| if weather.is_some() { 2 } else { 5 }),
            groups: group,
            only,
            subjects: subject,
            role,
            binary,
            before,
            write,
            prepared,
        }),
        Chore::Fuzz { targets, minutes, write, address } => {
            fuzz::run(&fuzz::Wish { targets, minutes, write, address })
        }
        Chore::Install { prefix } => install::run(&prefix),
        Chore::Reproducible => release::reproducible(),
        Chore::Proto { check } => proto::run(check),
        Chore::Man => install::manual(&tool::target().join("share")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A time that can be waited for.
fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse::<f64>().ok().filter(|minutes| (0.01..=10_000.0).contains(minutes));
    minutes.ok_or_else(|| "a number of minutes, up to 10000".to_owned())
}
