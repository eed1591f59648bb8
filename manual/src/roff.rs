//! A small writer of man pages: a [`Page`] in, man(7) macros out.
//!
//! Only what every man implementation knows is used (TH, SH, TP, PP, EX, EE, bold and italic). Text is escaped so
//! that it comes out as it went in: backslashes, hyphens that are part of a command, and leading dots and quotes.

use crate::model::{Block, Opt, Page};
use std::fmt::Write as _;

/// The man page's source, last newline included. It carries no date, so that the same tree gives the same file.
#[must_use]
pub fn write(page: &Page) -> String {
    let mut out = String::with_capacity(8192);
    let title = page.name.to_uppercase();
    let _ = writeln!(
        out,
        ".TH {} {} \"\" \"slipway {}\" \"{}\"",
        escape(&title),
        page.section,
        env!("CARGO_PKG_VERSION"),
        if page.section == 8 { "System Administration" } else { "User Commands" }
    );
    let _ = writeln!(out, ".SH NAME\n{} \\- {}", escape(page.name), escape(page.about));
    synopsis(&mut out, page);
    out.push_str(".SH DESCRIPTION\n");
    blocks(&mut out, page.description);
    if !page.options.is_empty() {
        out.push_str(".SH OPTIONS\n");
        page.options.iter().for_each(|option| write_option(&mut out, option));
    }
    for command in &page.commands {
        // What holds for all is said above.
        let own = |option: &&Opt| page.options.iter().all(|above| above.long != option.long);
        let _ = writeln!(out, ".SH \"OPTIONS OF {}\"", escape(&command.word.to_uppercase()));
        command.options.iter().filter(own).for_each(|option| write_option(&mut out, option));
    }
    for (heading, text) in page.sections {
        let _ = writeln!(out, ".SH \"{}\"", escape(heading));
        blocks(&mut out, text);
    }
    if !page.see_also.is_empty() {
        let names: Vec<_> = page.see_also.iter().map(|name| reference(name)).collect();
        let _ = writeln!(out, ".SH \"SEE ALSO\"\n{}", names.join(",\n"));
    }
    out
}

fn synopsis(out: &mut String, page: &Page) {
    out.push_str(".SH SYNOPSIS\n");
    for (index, line) in page.synopsis.iter().enumerate() {
        if index > 0 {
            out.push_str(".br\n");
        }
        let _ = writeln!(out, "\\fB{}\\fR {}", escape(page.command), escape(line));
    }
}

fn blocks(out: &mut String, blocks: &[Block]) {
    for block in blocks {
        let _ = match block {
            Block::Text(text) => writeln!(out, ".PP\n{}", paragraph(text)),
            Block::Code(code) => {
                let lines: Vec<_> = code.lines().map(line).collect();
                writeln!(out, ".PP\n.RS 4\n.EX\n{}\n.EE\n.RE", lines.join("\n"))
            }
            Block::Term(term, text) => writeln!(out, ".TP\n\\fB{}\\fR\n{}", escape(term), paragraph(text)),
        };
    }
}

fn write_option(out: &mut String, option: &Opt) {
    let mut names = Vec::new();
    if let Some(short) = option.short {
        names.push(format!("\\fB\\-{short}\\fR"));
    }
    if let Some(long) = &option.long {
        let value = option.value.as_ref().map(|value| format!("=\\fI{}\\fR", escape(value)));
        names.push(format!("\\fB\\-\\-{}\\fR{}", escape(long), value.unwrap_or_default()));
    }
    let _ = writeln!(out, ".TP\n{}", names.join(", "));
    let default = option.default.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    let _ = writeln!(out, "{}", paragraph(&sentence(&format!("{}{default}", option.help))));
    if !option.more.is_empty() {
        let _ = writeln!(out, "{}", paragraph(&option.more));
    }
}

/// A phrase as a sentence: capital letter first, full stop last.
fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    let stop = if phrase.ends_with('.') { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

fn paragraph(text: &str) -> String {
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A line that must not be taken for a request.
fn line(text: &str) -> String {
    let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
    format!("{guard}{}", escape(text))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq")
}

/// `slipway-run(1)`, the name in bold.
fn reference(name: &str) -> String {
    match name.split_once('(') {
        Some((name, section)) => format!("\\fB{}\\fR({section}", escape(name)),
        None => escape(name),
    }
}
