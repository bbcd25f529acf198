// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keeper's control socket, `control.sock` in the run directory: root, or whoever the keeper runs as,
//! asks it there.
//!
//! A client connects, sends one request, and gets one answer, each a JSON object in a line; then the keeper
//! closes the connection.
//!
//! ```text
//!   {"request":"stats"}                       {"answer":"stats","report":{"keeper_pid":1,"opens":2,...}}
//!   {"request":"upgrade"}                     {"answer":"upgraded","program":"/new","worker_pid":3,"kept":null}
//!   {"request":"upgrade","program":"/new"}
//!   anything else, or what has failed         {"answer":"error","error":"..."}
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`client`] | asking |
//! | `server` | answering, in the keeper's loop |

pub mod client;
pub(crate) mod server;

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::report::Report;
use crate::source::names::SourceList;

/// A request has no more bytes, its newline included.
pub const LONGEST_REQUEST: usize = 8 << 10;

/// What may be asked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The numbers of this moment.
    Stats,
    /// Another worker, and then another keeper in the same process, of a program that may be a new one.
    Upgrade {
        /// An absolute path; if it is left out, where the keeper's own program was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<PathBuf>,
    },
    /// What is stored of some objects is to go.
    Evict {
        /// Which.
        targets: Targets,
    },
    /// Where blobs come from; places of secrets, and no secrets.
    Sources,
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
    /// To [`Request::Upgrade`]: a worker of that program serves.
    Upgraded {
        /// The program.
        program: PathBuf,
        /// The worker.
        worker_pid: u32,
        /// Why the keeper is still the program that it was, if it is.
        kept: Option<String>,
    },
    /// To [`Request::Evict`].
    Evicted {
        /// What came of it.
        evicted: Evicted,
    },
    /// To [`Request::Sources`].
    Sources {
        /// As the workers are told.
        sources: Box<SourceList>,
    },
    /// It was not understood, or not done.
    Error {
        /// Why.
        error: String,
    },
}

/// What is to be evicted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Targets {
    /// Key of the volume, `erofs,DOMAIN` or `erofs,IMAGE`.
    pub volume: String,
    /// Keys of the objects in it.
    pub keys: Vec<String>,
    /// All others in that volume, too.
    #[serde(default)]
    pub all: bool,
    /// It is also forgotten that they had manifests.
    pub forget: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Evicted {
    /// Objects that are gone.
    pub objects: u64,
    /// What they took on disk, in bytes.
    pub bytes: u64,
    /// Objects that are in use, and stay; keys, or for those that were not named, names in the store.
    pub in_use: Vec<String>,
    /// Objects that could not be removed, and why.
    pub failed: Vec<String>,
    /// Keys of which nothing is stored.
    pub missing: Vec<String>,
    /// Objects of which it was forgotten that they had a manifest.
    pub forgotten: u64,
    /// A file that was removed may get its name back. The C module marks it, so that nobody picks it up any more, and
    /// then its image could not be mounted.
    pub reusable: bool,
}

impl Answer {
    pub(crate) fn error(error: impl Into<String>) -> Self {
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

        let upgrade: Request = serde_json::from_str(r#"{"request":"upgrade"}"#).unwrap();
        assert_eq!(upgrade, Request::Upgrade { program: None });
        let line = r#"{"request":"upgrade","program":"/new"}"#;
        let request: Request = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        let upgraded = Answer::Upgraded {
            program: "/new".into(),
            worker_pid: 3,
            kept: None,
        };
        let line = r#"{"answer":"upgraded","program":"/new","worker_pid":3,"kept":null}"#;
        assert_eq!(serde_json::to_string(&upgraded).unwrap(), line);

        let targets = Targets {
            volume: "erofs,v".into(),
            keys: vec!["image".into()],
            all: true,
            forget: true,
        };
        let evict = Request::Evict { targets };
        let line = concat!(
            r#"{"request":"evict","targets":{"volume":"erofs,v","keys":["image"],"#,
            r#""all":true,"forget":true}}"#
        );
        assert_eq!(serde_json::to_string(&evict).unwrap(), line);
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), evict);
        let evicted = Evicted::default();
        let line = concat!(
            r#"{"answer":"evicted","evicted":{"objects":0,"bytes":0,"#,
            r#""in_use":[],"failed":[],"missing":[],"forgotten":0,"reusable":false}}"#
        );
        let answer = Answer::Evicted { evicted };
        assert_eq!(serde_json::to_string(&answer).unwrap(), line);

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
