//! The contract of pasta and passt, seen from outside: the binary under its drop-in names, beside the original of
//! `target/trees` where that is there (`cargo xtask deps`), which proves the tests.

mod t01_words;
