//! HTTP/1.1 as far as gvproxy's API goes, with the manners of Go's net/http.
//!
//! An own server of a few hundred lines around the parser `httparse`, not `hyper`, for two reasons. `/connect` and
//! `/tunnel` take the connection without a status line, and what was sent behind the head has to come along; `hyper`
//! gives a connection away after a 101 only, so heads would have to be parsed twice. And a connection costs what it
//! sends: while nothing is under way it has no buffer, up to [`serve::SMALL`] bytes it has one of its own, and what is
//! larger shares a [`budget`], so that ten thousand clients do not make the process large.
//!
//! | module | what |
//! |---|---|
//! | [`head`] | the head of a request (pure) |
//! | [`reply`] | an answer (pure) |
//! | `body` | a body, whole or in pieces |
//! | `budget` | memory for what is large |
//! | [`serve`] | a connection, request by request |

mod body;
pub(super) mod budget;
pub(crate) mod head;
pub(crate) mod reply;
pub(crate) mod serve;
