//! A body: what of it is here, and where it ends. Pure.
//!
//! Source: RFC 9112 §7.1. Extensions of pieces and trailers are read and forgotten.

/// The longest body, in bytes.
pub(crate) const LONGEST: usize = 1 << 20;
/// What stands around one piece, or a trailer, at the most.
const LONGEST_LINE: usize = 4 << 10;

/// A body that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// What has come of it, put together.
    pub(crate) body: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// A length comes.
    #[default]
    Length,
    /// So many bytes come.
    Piece(usize),
    /// The end of a line comes.
    End,
    /// Trailers come.
    Trailers,
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more to come.
    More,
    /// Nothing.
    Whole,
    /// It is none, or too long.
    Wrong,
    /// It is too long.
    TooLong,
}

impl Pieces {
    /// Takes from `buffer` what belongs to the body.
    pub(crate) fn take(&mut self, buffer: &mut Vec<u8>) -> Progress {
        loop {
            match self.step(buffer) {
                Some(Progress::More) => {}
                Some(end) => return end,
                None if buffer.len() > LONGEST_LINE => return Progress::Wrong,
                None => return Progress::More,
            }
        }
    }

    /// One step; `None`: more is needed for it.
    fn step(&mut self, buffer: &mut Vec<u8>) -> Option<Progress> {
        match self.state {
            State::Length => match httparse::parse_chunk_size(buffer) {
                Ok(httparse::Status::Partial) => return None,
                Ok(httparse::Status::Complete((used, len))) => {
                    buffer.drain(..used.min(buffer.len()));
                    let Some(len) = usize::try_from(len).ok().filter(|len| *len <= LONGEST - self.body.len())
                    else {
                        return Some(Progress::TooLong);
                    };
                    self.state = if len == 0 { State::Trailers } else { State::Piece(len) };
                }
                Err(_) => return Some(Progress::Wrong),
            },
            State::Piece(left) => {
                let len = left.min(buffer.len());
                if len == 0 {
                    return None;
                }
                self.body.extend(buffer.drain(..len));
                self.state = if len == left { State::End } else { State::Piece(left - len) };
            }
            State::End => {
                let end = buffer.first_chunk::<2>()?;
                if end != b"\r\n" {
                    return Some(Progress::Wrong);
                }
                buffer.drain(..2);
                self.state = State::Length;
            }
            State::Trailers => {
                let end = buffer.windows(2).position(|pair| pair == b"\r\n")?;
                buffer.drain(..end + 2);
                if end == 0 {
                    return Some(Progress::Whole);
                }
            }
        }
        Some(Progress::More)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_put_together_however_they_come() {
        let text = b"5;x=y\r\nhello\r\n1\r\n,\r\n06\r\n world\r\n0\r\nX: y\r\n\r\nbehind";
        for step in 1..=text.len() {
            let (mut pieces, mut buffer) = (Pieces::default(), Vec::new());
            let mut whole = false;
            for part in text.chunks(step) {
                buffer.extend_from_slice(part);
                if !whole {
                    let progress = pieces.take(&mut buffer);
                    whole = progress == Progress::Whole;
                    assert!(whole || progress == Progress::More, "{step}: {progress:?}");
                }
            }
            assert!(whole && pieces.body == b"hello, world" && buffer == b"behind", "{step}");
        }
    }

    #[test]
    fn what_is_none_or_too_long_is_told() {
        for (text, progress) in [
            ("x\r\n", Progress::Wrong),
            ("1\r\nabc\r\n", Progress::Wrong),
            ("100001\r\n", Progress::TooLong),
            ("fffffffffffffffff\r\n", Progress::Wrong),
        ] {
            let mut buffer = text.as_bytes().to_vec();
            assert_eq!(Pieces::default().take(&mut buffer), progress, "{text}");
        }
        let mut buffer = format!("0\r\n{}", "x".repeat(LONGEST_LINE + 1)).into_bytes();
        assert_eq!(Pieces::default().take(&mut buffer), Progress::Wrong);
    }
}
