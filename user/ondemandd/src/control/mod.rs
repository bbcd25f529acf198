// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keeper's control socket, `control.sock` in the run directory: root, or whoever the keeper runs as,
//! asks it there.
//!
//! A client connects, sends one request, and gets one answer, each a JSON object in a line; then the keeper
//! closes the connection.
//!
//! ```text
//!   {"request":"stats"}     {"answer":"stats","report":{"keeper_pid":1,"opens":2,...}}
//!   anything else           {"answer":"error","error":"..."}
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`client`] | asking |
//! | `server` | answering, in the keeper's loop |

pub mod client;
pub(crate) mod server;

use serde::Deserialize;
use serde::Serialize;

use crate::report::Report;

/// A request has no more bytes, its newline included.
pub const LONGEST_REQUEST: usize = 8 << 10;

/// What may be asked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The numbers of this moment.
    Stats,
}

/// What is answered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Stats`].
    Stats {
        /// The numbers.
        report: Box<Report>,
    },
    /// It was not understood, or not done.
    Error {
        /// Why.
        error: String,
    },
}

impl Answer {
    fn error(error: impl Into<String>) -> Self {
        Answer::Error {
            error: error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_as_documented() {
        let line = r#"{"request":"stats"}"#;
        let request: Request = serde_json::from_str(line).unwrap();
        assert_eq!(request, Request::Stats);
        assert_eq!(serde_json::to_string(&request).unwrap(), line);

        let report = Box::new(crate::report::tests::report());
        let answer = Answer::Stats { report };
        let text = serde_json::to_string(&answer).unwrap();
        assert!(
            text.starts_with(r#"{"answer":"stats","report":{"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
        let text = serde_json::to_string(&Answer::error("no")).unwrap();
        assert_eq!(text, r#"{"answer":"error","error":"no"}"#);
    }
}
