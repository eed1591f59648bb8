//! Rust source as far as laws look at it: without comments and literals, and as words.

/// The source without comments and without the inside of string and character literals; lines stay lines.
pub(super) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut index = 0;
    while index < chars.len() {
        let end = match (at(index), at(index + 1)) {
            ('/', '/') => line_end(&chars, index),
            ('/', '*') => block_end(&chars, index),
            ('"', _) => string_end(&chars, index, raw_hashes(&chars, index)),
            ('\'', '\\') => (index + 3..chars.len()).find(|i| at(*i) == '\'').map_or(chars.len(), |i| i + 1),
            ('\'', _) if at(index + 2) == '\'' => index + 3,
            (c, _) => {
                out.push(c);
                index += 1;
                continue;
            }
        };
        out.extend(chars.get(index..end).unwrap_or_default().iter().filter(|c| **c == '\n'));
        index = end.max(index + 1);
    }
    out
}

fn line_end(chars: &[char], from: usize) -> usize {
    chars.iter().skip(from).position(|c| *c == '\n').map_or(chars.len(), |length| from + length)
}

fn block_end(chars: &[char], from: usize) -> usize {
    let mut depth = 0_usize;
    let mut index = from;
    while index < chars.len() {
        match chars.get(index..index + 2) {
            Some(['/', '*']) => (depth, index) = (depth + 1, index + 2),
            Some(['*', '/']) => {
                (depth, index) = (depth - 1, index + 2);
                if depth == 0 {
                    return index;
                }
            }
            _ => index += 1,
        }
    }
    chars.len()
}

/// How many `#` stand between an `r` and this quote; `None` when the literal is not raw.
fn raw_hashes(chars: &[char], quote: usize) -> Option<usize> {
    let before = chars.get(..quote).unwrap_or_default();
    let hashes = before.iter().rev().take_while(|c| **c == '#').count();
    (before.iter().rev().nth(hashes) == Some(&'r')).then_some(hashes)
}

fn string_end(chars: &[char], quote: usize, raw: Option<usize>) -> usize {
    let mut index = quote + 1;
    while let Some(c) = chars.get(index) {
        match (c, raw) {
            ('\\', None) => index += 1,
            ('"', None) => return index + 1,
            ('"', Some(hashes)) => {
                let closing = chars.iter().skip(index + 1).take(hashes).filter(|c| **c == '#').count();
                if closing == hashes {
                    return index + 1 + hashes;
                }
            }
            _ => {}
        }
        index += 1;
    }
    chars.len()
}

/// A word of source, or what stands between words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    /// `::`
    Path,
    Sign(char),
}

/// The tokens of [`code`], each with its line, which begin at one.
pub(super) fn tokens(code: &str) -> Vec<(usize, Token<'_>)> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let word = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            let (token, length) = match word {
                "" if rest.starts_with("::") => (Token::Path, 2),
                "" => (Token::Sign(first), first.len_utf8()),
                word => (Token::Word(word), word.len()),
            };
            if !first.is_whitespace() {
                found.push((number + 1, token));
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    found
}

/// Tokens with their lines, as far as they have not been read.
pub(super) type Rest<'t, 'a> = &'t [(usize, Token<'a>)];

/// What comes after the item to which an attribute belongs, whose opening bracket is the first token.
pub(super) fn item_end<'t, 'a>(tokens: Rest<'t, 'a>) -> Rest<'t, 'a> {
    let mut rest = behind_group(tokens);
    while let [(_, Token::Sign('#')), behind @ ..] = rest {
        rest = behind_group(behind);
    }
    const ITEMS: [&str; 10] =
        ["fn", "mod", "use", "impl", "struct", "enum", "const", "static", "type", "trait"];
    // A field, a variant or an argument ends with a comma; among the parameters of an item there are some.
    let is_item =
        rest.iter().take(8).any(|(_, token)| matches!(token, Token::Word(word) if ITEMS.contains(word)));
    while let [(_, token), behind @ ..] = rest {
        match token {
            Token::Sign('{') => return behind_group(rest),
            Token::Sign('(' | '[') => rest = behind_group(rest),
            Token::Sign(')' | ']' | '}') => return rest,
            Token::Sign(';') => return behind,
            Token::Sign(',') if !is_item => return behind,
            _ => rest = behind,
        }
    }
    rest
}

/// What comes after the bracket that closes the first one.
fn behind_group<'t, 'a>(mut tokens: Rest<'t, 'a>) -> Rest<'t, 'a> {
    let mut depth = 0_usize;
    while let [(_, token), behind @ ..] = tokens {
        tokens = behind;
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    tokens
}

/// One name that a `use` takes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) path: Vec<String>,
    /// What it is called here; `None` for all names of a module.
    pub(super) name: Option<String>,
}

/// What is taken in by the `use` whose word was read, and what comes after it.
pub(super) fn use_tree<'t, 'a>(tokens: Rest<'t, 'a>) -> (Vec<Leaf>, Rest<'t, 'a>) {
    let mut leaves = Vec::new();
    let rest = branch(tokens, &[], &mut leaves);
    (leaves, rest)
}

fn branch<'t, 'a>(mut tokens: Rest<'t, 'a>, before: &[String], leaves: &mut Vec<Leaf>) -> Rest<'t, 'a> {
    let mut path = before.to_vec();
    loop {
        match tokens {
            [(_, Token::Word("as")), (_, Token::Word(name)), rest @ ..] => {
                leaves.push(Leaf { path, name: Some((*name).to_owned()) });
                return rest;
            }
            [(_, Token::Word(word)), rest @ ..] => {
                path.push((*word).to_owned());
                tokens = rest;
            }
            [(_, Token::Path), rest @ ..] => tokens = rest,
            [(_, Token::Sign('*')), rest @ ..] => {
                leaves.push(Leaf { path, name: None });
                return rest;
            }
            [(_, Token::Sign('{')), rest @ ..] => {
                tokens = rest;
                loop {
                    tokens = match tokens {
                        [(_, Token::Sign('}')), rest @ ..] => return rest,
                        [(_, Token::Sign(',')), rest @ ..] => rest,
                        [(_, Token::Word(_) | Token::Path | Token::Sign('*' | '{')), ..] => {
                            branch(tokens, &path, leaves)
                        }
                        rest => return rest,
                    };
                }
            }
            rest => {
                // `a::{self}` is `a`.
                if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                    path.pop();
                }
                if !path.is_empty() {
                    leaves.push(Leaf { name: path.last().cloned(), path });
                }
                return rest;
            }
        }
    }
}

/// The names of the path that begins here, and what comes after it.
pub(super) fn path<'t, 'a>(mut tokens: Rest<'t, 'a>) -> (Vec<String>, Rest<'t, 'a>) {
    let mut names = Vec::new();
    while let [(_, Token::Word(name)), rest @ ..] = tokens {
        names.push((*name).to_owned());
        tokens = rest;
        match rest {
            [(_, Token::Path), (_, Token::Word(_)), ..] => tokens = rest.get(1..).unwrap_or_default(),
            _ => break,
        }
    }
    (names, tokens)
}

/// The type of an `impl` whose word was read, unless it is one of a trait.
pub(super) fn implemented(tokens: Rest<'_, '_>) -> Option<String> {
    let (names, rest) = path(behind_generics(tokens));
    match behind_generics(rest) {
        [(_, Token::Word("for")), ..] => None,
        _ => names.into_iter().next_back(),
    }
}

/// What comes after `<…>`, if that is what comes.
fn behind_generics<'t, 'a>(mut tokens: Rest<'t, 'a>) -> Rest<'t, 'a> {
    let mut depth = 0_usize;
    while let [(_, token), behind @ ..] = tokens {
        match token {
            Token::Sign('<') => depth += 1,
            _ if depth == 0 => return tokens,
            Token::Sign('>') => depth -= 1,
            _ => {}
        }
        tokens = behind;
        if depth == 0 {
            break;
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "a // unsafe\nb /* unsafe /* x */ unsafe */ c\n\"unsafe \\\" unsafe\" r#\"unsafe \" unsafe\"# '\"' 'x' d";
        assert_eq!(code(text), "a \nb  c\n r#   d");
    }

    #[test]
    fn what_is_used_is_read() {
        let text = "a::{self, b::{c as d, *}, e}; f";
        let leaf = |path: &[&str], name: Option<&str>| Leaf {
            path: path.iter().map(ToString::to_string).collect(),
            name: name.map(str::to_owned),
        };
        let tokens = tokens(text);
        let (leaves, rest) = use_tree(&tokens);
        let wanted = [
            leaf(&["a"], Some("a")),
            leaf(&["a", "b", "c"], Some("d")),
            leaf(&["a", "b"], None),
            leaf(&["a", "e"], Some("e")),
        ];
        assert_eq!(leaves, wanted);
        assert_eq!(rest.first().unwrap().1, Token::Sign(';'));
    }

    #[test]
    fn an_item_ends_where_it_ends() {
        for (text, next) in [
            ("[cfg(test)] mod tests { fn f() {} } next", "next"),
            ("[cfg(test)] #[path = x] mod tests; next", "next"),
            ("[cfg(test)] pub(super) fn f(a: [u8; 2], b: u8) -> u8 { 1 } next", "next"),
            ("[cfg(test)] field: u8, next", "next"),
        ] {
            let tokens = tokens(text);
            assert_eq!(item_end(&tokens).first().unwrap().1, Token::Word(next), "{text}");
        }
    }

    #[test]
    fn an_impl_of_a_trait_is_told_apart() {
        for (text, wanted) in [
            ("Engine { }", Some("Engine")),
            ("<T: Iterator<Item = u8>> super::Engine<T> { }", Some("Engine")),
            ("fmt::Display for Engine { }", None),
            ("<T> From<T> for Engine { }", None),
        ] {
            assert_eq!(implemented(&tokens(text)).as_deref(), wanted, "{text}");
        }
    }
}
