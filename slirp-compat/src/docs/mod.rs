//! Man pages and shell completions, made from the same tables that the parsers use.
//!
//! [`pages`] and [`completions`] give names and texts; whoever calls them (`cargo xtask man`, `cargo xtask install`)
//! only writes files. A command is first described as a [`model::Page`], whatever parses its options, and then
//! written by [`roff`] or [`complete`]. Nothing here runs in an ordinary start of the program.

pub mod complete;
pub mod model;
pub mod pages;
pub mod roff;

pub use complete::Shell;

/// File names (`slipway.1`) and texts of all man pages.
#[must_use]
pub fn pages() -> Vec<(String, String)> {
    pages::all().iter().map(page).collect()
}

/// File name and text of one man page.
#[must_use]
pub fn page(page: &model::Page) -> (String, String) {
    (format!("{}.{}", page.name, page.section), roff::write(page))
}

/// File names, as the shell wants them, and texts of all completions for `shell`.
#[must_use]
pub fn completions(shell: Shell) -> Vec<(String, String)> {
    let all = pages::all();
    let find = |name: &str| all.iter().find(|page| page.name == name);
    let mut files = Vec::new();
    if let Some(slirp) = find("slirp4netns") {
        files.push(complete::write(shell, slirp, &[]));
    }
    if let Some(main) = find("slipway") {
        // The drop-in names are sub-commands too.
        let below: Vec<_> = all.iter().filter(|page| page.name != "slipway").collect();
        files.push(complete::write(shell, main, &below));
    }
    files
}

#[cfg(test)]
mod tests;
