// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a client of the metrics may say: HTTP, as little of it as there must be.

use super::CONTENT_TYPE;
use crate::clients::ClientId;
use crate::clients::Service;
use crate::report::Reporter;

/// Answers requests for `/metrics`.
pub(super) struct Http<'a>(pub(super) &'a Reporter);

impl Service for Http<'_> {
    /// Before the blank line.
    const LONGEST_REQUEST: usize = 8 << 10;

    fn is_complete(request: &[u8]) -> bool {
        request.windows(4).any(|end| end == b"\r\n\r\n")
    }

    fn too_long() -> Vec<u8> {
        let status = "431 Request Header Fields Too Large";
        answer(status, "", "too long\n", false)
    }

    fn answer(&mut self, _client: ClientId, request: &[u8]) -> Option<Vec<u8>> {
        let metrics = || super::text(self.0.report()).ok();
        Some(answer_to(request, &metrics))
    }
}

/// The answer to a request whose blank line has come.
fn answer_to(head: &[u8], metrics: &dyn Fn() -> Option<String>) -> Vec<u8> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words.as_slice() else {
        return answer("400 Bad Request", "", "no request\n", false);
    };
    if !version.starts_with(b"HTTP/1.") {
        return answer(
            "505 HTTP Version Not Supported",
            "",
            "HTTP/1.1 only\n",
            false,
        );
    }
    let without_body = *method == b"HEAD";
    if *method != b"GET" && !without_body {
        return answer(
            "405 Method Not Allowed",
            "Allow: GET, HEAD\r\n",
            "GET only\n",
            false,
        );
    }
    let path = target.split(|byte| *byte == b'?').next();
    if path != Some(b"/metrics") {
        return answer("404 Not Found", "", "see /metrics\n", without_body);
    }
    match metrics() {
        Some(text) => {
            let kind = format!("Content-Type: {CONTENT_TYPE}\r\n");
            answer("200 OK", &kind, &text, without_body)
        }
        None => answer("500 Internal Server Error", "", "failed\n", without_body),
    }
}

fn answer(status: &str, headers: &str, body: &str, without_body: bool) -> Vec<u8> {
    let len = body.len();
    let mut answer =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n");
    if !without_body {
        answer.push_str(body);
    }
    answer.into_bytes()
}
