//! The JSON of a call: from a file, or from standard input.
//!
//! Whatever is wrong with it is reported as an I/O error, JSON errors too; callers know it so.

use crate::error::{Context, Result};
use serde::de::DeserializeOwned;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};

/// Reads and understands it.
pub(crate) fn load<T: DeserializeOwned>(file: Option<&OsStr>, what: &str) -> Result<T> {
    read(file)
        .and_then(|text| Ok(serde_json::from_slice(&text)?))
        .with_context(|| format!("failed to load {what}"))
}

fn read(file: Option<&OsStr>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    match file {
        Some(path) => File::open(path)?.read_to_end(&mut text)?,
        None => io::stdin().lock().read_to_end(&mut text)?,
    };
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::NetworkOptions;
    use std::io::Write as _;

    fn text_of(content: &str) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        load::<NetworkOptions>(Some(file.path().as_os_str()), "network options").unwrap_err().to_string()
    }

    #[test]
    fn all_that_can_be_wrong_is_an_io_error() {
        let opening = "failed to load network options: IO error: ";
        for (content, rest) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{}", "missing field `container_id` at line 1 column 2"),
            ("[1", "invalid type: integer `1`, expected a string at line 1 column 2"),
            ("{} {}", "missing field `container_id` at line 1 column 2"),
        ] {
            assert_eq!(text_of(content), format!("{opening}{rest}"));
        }
        let error = load::<u8>(Some(OsStr::new("/nonexistent")), "network options").unwrap_err();
        assert_eq!(error.to_string(), format!("{opening}No such file or directory (os error 2)"));
    }
}
