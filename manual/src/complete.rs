//! A small writer of shell completions: [`Completion`]s in, scripts for bash, zsh and fish out.
//!
//! One level of sub-commands is understood. Where there is a second one, another program has the first (`slipway net`),
//! and knows best: the script hands what follows the word to that program's script, if it is there. Words are quoted
//! for the shell they go to; they come from our own tables, but a help text may well contain an apostrophe.

use crate::model::{Offer, Opt, Page, SubCommand};
use std::fmt::Write as _;

/// A shell that completions can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash, with or without the bash-completion package.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bash, Self::Zsh, Self::Fish];

    /// Where its completions are, below `/usr/share`.
    #[must_use]
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Bash => "bash-completion/completions",
            Self::Zsh => "zsh/site-functions",
            Self::Fish => "fish/vendor_completions.d",
        }
    }
}

/// A command for a shell to complete.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The command, `slipway`; `slipway net` when another script hands over what follows these words.
    pub command: String,
    /// Its own options, before any sub-command.
    pub options: Vec<Opt>,
    /// Its sub-commands.
    pub below: Vec<Below>,
}

/// A sub-command for a shell to complete.
#[derive(Debug, Clone)]
pub struct Below {
    /// Its word, line and options.
    pub sub: SubCommand,
    /// What else follows it.
    pub then: Then,
}

/// Who knows the words behind a sub-command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nobody: files are offered.
    Files,
    /// They are a command of somebody else's.
    Command,
    /// The script of the program that this sub-command is.
    Script,
}

impl Completion {
    /// A command without sub-commands, or with those that its page describes.
    #[must_use]
    pub fn of_page(page: &Page) -> Self {
        Self {
            command: page.command.to_owned(),
            options: page.options.clone(),
            below: page.commands.iter().cloned().map(|sub| Below { sub, then: Then::Files }).collect(),
        }
    }

    /// The command in one word.
    fn name(&self) -> String {
        self.command.replace(' ', "-")
    }

    /// What the line begins with, and the word behind it if the command is somebody's sub-command.
    fn words(&self) -> (&str, Option<&str>) {
        self.command.split_once(' ').map_or((&self.command, None), |(program, word)| (program, Some(word)))
    }
}

impl Below {
    /// The sub-command that has this page.
    #[must_use]
    pub fn of_page(page: &Page, then: Then) -> Self {
        let (word, about) = (page.word().to_owned(), page.about.to_owned());
        Self { sub: SubCommand { word, about, options: page.options.clone() }, then }
    }
}

/// The file's name and text.
#[must_use]
pub fn write(shell: Shell, completion: &Completion) -> (String, String) {
    let name = completion.name();
    match shell {
        Shell::Bash => (name, bash(completion)),
        Shell::Zsh => (format!("_{name}"), zsh(completion)),
        Shell::Fish => (format!("{name}.fish"), fish(completion)),
    }
}

/// `-m` and `--mtu`, as far as there are such names.
fn names(option: &Opt) -> Vec<String> {
    let short = option.short.map(|letter| format!("-{letter}"));
    short.into_iter().chain(option.long.as_ref().map(|long| format!("--{long}"))).collect()
}

/// Between apostrophes, for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

// ── bash ───────────────────────────────────────────────────────────────────────────────────────────────

/// The script's function; another script calls it, too.
fn bash_function(name: &str) -> String {
    format!("_{}", name.replace('-', "_"))
}

fn bash(completion: &Completion) -> String {
    let function = bash_function(&completion.name());
    let mut out = String::new();
    let _ = writeln!(out, "# bash completion for {}", completion.command);
    let _ = writeln!(out, "{function}() {{");
    out.push_str("    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} sub= word i\n");
    out.push_str("    COMPREPLY=()\n");
    if !completion.below.is_empty() {
        // The first word that is no option is the sub-command.
        out.push_str("    for ((i = 1; i < COMP_CWORD; i++)); do\n");
        out.push_str("        word=${COMP_WORDS[i]}\n");
        out.push_str("        if [[ $word != -* ]]; then sub=$word; break; fi\n    done\n");
    }
    out.push_str("    case $sub in\n");
    for below in &completion.below {
        let _ = writeln!(out, "    {})", quoted(&below.sub.word));
        match below.then {
            Then::Script => bash_hand_over(&mut out, &format!("{}-{}", completion.name(), below.sub.word)),
            Then::Files | Then::Command => bash_branch(&mut out, &below.sub.options, &[]),
        }
    }
    out.push_str("    *)\n");
    bash_branch(&mut out, &completion.options, &completion.below);
    out.push_str("    esac\n}\n");
    if let (program, None) = completion.words() {
        let _ = writeln!(out, "complete -o bashdefault -o default -F {function} {program}");
    }
    out
}

/// Lets the script called `name`, which lies beside this one, see what follows as a line of its own.
fn bash_hand_over(out: &mut String, name: &str) {
    let function = bash_function(name);
    let _ = writeln!(
        out,
        "        declare -F {function} >/dev/null || . \"${{BASH_SOURCE[0]%/*}}/{name}\" 2>/dev/null || return\n\
         \x20       local rest=({name} \"${{COMP_WORDS[@]:i+1}}\")\n\
         \x20       local COMP_WORDS=(\"${{rest[@]}}\") COMP_CWORD=$((COMP_CWORD - i))\n\
         \x20       {function}\n        ;;"
    );
}

fn bash_branch(out: &mut String, options: &[Opt], below: &[Below]) {
    out.push_str("        case $prev in\n");
    for option in options.iter().filter(|option| option.value.is_some()) {
        let action = match &option.offer {
            Offer::Nothing => "return".to_owned(),
            Offer::File => "COMPREPLY=($(compgen -f -- \"$cur\")); return".to_owned(),
            Offer::Interface => {
                "COMPREPLY=($(cd /sys/class/net && compgen -f -- \"$cur\")); return".to_owned()
            }
            Offer::Words(words) => {
                format!("COMPREPLY=($(compgen -W {} -- \"$cur\")); return", quoted(&words.join(" ")))
            }
        };
        let _ = writeln!(out, "        {}) {action} ;;", names(option).join("|"));
    }
    out.push_str("        esac\n");
    let all: Vec<_> = options.iter().flat_map(names).collect();
    let _ = writeln!(
        out,
        "        if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W {} -- \"$cur\")); return; fi",
        quoted(&all.join(" "))
    );
    if !below.is_empty() {
        let words: Vec<_> = below.iter().map(|below| below.sub.word.as_str()).collect();
        let _ = writeln!(out, "        COMPREPLY=($(compgen -W {} -- \"$cur\"))", quoted(&words.join(" ")));
    }
    out.push_str("        ;;\n");
}

// ── zsh ────────────────────────────────────────────────────────────────────────────────────────────────

fn zsh(completion: &Completion) -> String {
    let mut out = match completion.words() {
        (program, None) => format!("#compdef {program}\n\n"),
        // Found by its name, and called by another script only.
        (_, Some(_)) => "#autoload\n\n".to_owned(),
    };
    if completion.below.is_empty() {
        zsh_arguments(&mut out, "", &completion.options, &["'*: :_files'"]);
        return out;
    }
    out.push_str("local context state state_descr line\ntypeset -A opt_args\n");
    zsh_arguments(&mut out, "", &completion.options, &["'1: :->command'", "'*:: :->rest'"]);
    out.push_str("case $state in\ncommand)\n    local -a commands=(\n");
    for below in &completion.below {
        let _ = writeln!(out, "        {}", quoted(&format!("{}:{}", below.sub.word, below.sub.about)));
    }
    out.push_str("    )\n    _describe command commands\n    ;;\nrest)\n    case $words[1] in\n");
    for below in &completion.below {
        let word = &below.sub.word;
        let _ = writeln!(out, "    {word})");
        let mut arguments = |tail| zsh_arguments(&mut out, "        ", &below.sub.options, &[tail]);
        match below.then {
            Then::Files => arguments("'*: :_files'"),
            Then::Command => arguments("'*:: :_normal'"),
            Then::Script => {
                let function = format!("_{}-{word}", completion.name());
                let _ = writeln!(out, "        (( $+functions[{function}] )) && {function}");
            }
        }
        out.push_str("        ;;\n");
    }
    out.push_str("    esac\n    ;;\nesac\n");
    out
}

fn zsh_arguments(out: &mut String, indent: &str, options: &[Opt], tail: &[&str]) {
    let _ = write!(out, "{indent}_arguments -s -S -C");
    for option in options {
        let help =
            option.help.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
        let action = option.value.as_ref().map(|value| {
            let action = match &option.offer {
                Offer::Nothing => " ".to_owned(),
                Offer::File => "_files".to_owned(),
                Offer::Interface => "_net_interfaces".to_owned(),
                Offer::Words(words) => format!("({})", words.join(" ")),
            };
            format!(":{}:{action}", value.replace(':', "\\:"))
        });
        for name in names(option) {
            let attach = match (&option.value, name.starts_with("--")) {
                (None, _) => "",
                (Some(_), true) => "=",
                (Some(_), false) => "+",
            };
            let spec = format!("*{name}{attach}[{help}]{}", action.as_deref().unwrap_or_default());
            let _ = write!(out, " \\\n{indent}    {}", quoted(&spec));
        }
    }
    for spec in tail {
        let _ = write!(out, " \\\n{indent}    {spec}");
    }
    out.push('\n');
}

// ── fish ───────────────────────────────────────────────────────────────────────────────────────────────

fn fish(completion: &Completion) -> String {
    let (program, above) = completion.words();
    let mut out = String::new();
    let _ = writeln!(out, "# fish completion for {}", completion.command);
    let words: Vec<_> = completion.below.iter().map(|below| below.sub.word.as_str()).collect();
    // Before any sub-command of ours, and behind the word that leads to us.
    let first = match above {
        _ if words.is_empty() => None,
        None => Some("__fish_use_subcommand".to_owned()),
        Some(above) => Some(format!(
            "__fish_seen_subcommand_from {above}; and not __fish_seen_subcommand_from {}",
            words.join(" ")
        )),
    };
    for below in &completion.below {
        let _ = writeln!(
            out,
            "complete -c {program} -n {} -f -a {} -d {}",
            fish_quoted(first.as_deref().unwrap_or_default()),
            fish_quoted(&below.sub.word),
            fish_quoted(&below.sub.about)
        );
    }
    fish_options(&mut out, program, first.as_deref(), &completion.options);
    for below in &completion.below {
        let word = &below.sub.word;
        if below.then == Then::Script {
            let file = format!("(status dirname)/{}-{word}.fish", completion.name());
            let _ = writeln!(out, "test -f {file}; and source {file}");
        }
        let behind = above.map(|above| format!("__fish_seen_subcommand_from {above}; and "));
        let condition = format!("{}__fish_seen_subcommand_from {word}", behind.unwrap_or_default());
        fish_options(&mut out, program, Some(&condition), &below.sub.options);
    }
    out
}

fn fish_options(out: &mut String, command: &str, condition: Option<&str>, options: &[Opt]) {
    for option in options {
        let _ = write!(out, "complete -c {command}");
        if let Some(condition) = condition {
            let _ = write!(out, " -n {}", fish_quoted(condition));
        }
        if let Some(short) = option.short {
            let _ = write!(out, " -s {short}");
        }
        if let Some(long) = &option.long {
            let _ = write!(out, " -l {long}");
        }
        if option.value.is_some() {
            match &option.offer {
                Offer::Nothing => out.push_str(" -x"),
                Offer::File => out.push_str(" -r -F"),
                Offer::Interface => out.push_str(" -x -a '(__fish_print_interfaces)'"),
                Offer::Words(words) => {
                    let _ = write!(out, " -x -a {}", fish_quoted(&words.join(" ")));
                }
            }
        }
        let _ = writeln!(out, " -d {}", fish_quoted(&option.help));
    }
}

fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
