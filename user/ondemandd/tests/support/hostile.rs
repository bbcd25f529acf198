// SPDX-License-Identifier: MIT OR Apache-2.0

//! A web server in this process that does wrong what a test tells it, down to the bytes: what no server
//! that was made to be right can be brought to do.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use ondemand_deadline::scaled;

/// No test takes so long on the reference machine; a connection that does is given up.
pub const SOON: Duration = Duration::from_secs(20);

/// The same on this machine, now.
pub fn soon() -> Duration {
    scaled(SOON)
}

/// What a client asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// GET or HEAD.
    pub method: String,
    /// With its slash.
    pub path: String,
    /// First and last byte.
    pub range: Option<(usize, usize)>,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// How many GETs, or how many HEADs, there were before.
    pub before: usize,
}

impl Asked {
    /// The value of a header, if it was sent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(other, _)| other == name)?;
        Some(value)
    }
}

/// What a test does with a request: it writes the answer. The connection is closed after an error.
pub type Answer = dyn Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync;

struct Shared {
    answer: Box<Answer>,
    ends: AtomicBool,
    gets: AtomicUsize,
    heads: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
}

/// The server; it ends when it is dropped.
pub struct Hostile {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Hostile {
    /// Starts a server on a free port of this machine.
    pub fn start(
        answer: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            ends: AtomicBool::new(false),
            gets: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
            asked: Mutex::default(),
        });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if server.ends.load(SeqCst) {
                    return;
                }
                let (Ok(stream), server) = (stream, Arc::clone(&server)) else {
                    return;
                };
                // A client that goes away is no failure.
                thread::spawn(move || drop(talk(&server, stream)));
            }
        });
        Hostile { address, shared }
    }

    /// `http://` and where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests until now.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.shared.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// GETs until now.
    #[must_use]
    pub fn gets(&self) -> usize {
        self.shared.gets.load(SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.shared.ends.store(true, SeqCst);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

fn talk(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(soon()))?;
    stream.set_write_timeout(Some(soon()))?;
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    while let Some(mut asked) = read_head(&mut lines)? {
        let counter = match asked.method.as_str() {
            "HEAD" => &shared.heads,
            _ => &shared.gets,
        };
        asked.before = counter.fetch_add(1, SeqCst);
        let all = shared.asked.lock();
        all.unwrap_or_else(PoisonError::into_inner)
            .push(asked.clone());
        (shared.answer)(&asked, &mut stream)?;
    }
    Ok(())
}

fn read_head(lines: &mut impl BufRead) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if lines.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let mut asked = Asked {
        method: words.next().unwrap_or("").to_owned(),
        path: words.next().unwrap_or("").to_owned(),
        ..Asked::default()
    };
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        asked.headers.push((name.to_lowercase(), value.to_owned()));
    }
    let range = asked.header("range");
    asked.range = range.and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    Ok(Some(asked))
}

/// Bytes that tell their place.
#[must_use]
pub fn blob(len: usize) -> Vec<u8> {
    let byte = |n: usize| u8::try_from((n * 31 + n / 251) % 251).unwrap_or(0) | 1;
    (0..len).map(byte).collect()
}

/// Answers as a good server does.
pub fn well(asked: &Asked, stream: &mut TcpStream, blob: &[u8], etag: &str) -> io::Result<()> {
    if asked.method == "HEAD" {
        let len = blob.len();
        return head(
            stream,
            "200 OK",
            &format!("Content-Length: {len}\r\nETag: {etag}\r\n"),
        );
    }
    if asked.header("if-match").is_some_and(|other| other != etag) {
        return head(stream, "412 Precondition Failed", "Content-Length: 0\r\n");
    }
    let Some((first, last)) = asked.range else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if first >= blob.len() {
        return head(stream, "416 Range Not Satisfiable", "Content-Length: 0\r\n");
    }
    let last = last.min(blob.len() - 1);
    partial(stream, (first, last), blob.len(), etag)?;
    stream.write_all(&blob[first..=last])
}

/// The head of a 206 with everything that belongs there.
pub fn partial(
    stream: &mut TcpStream,
    (first, last): (usize, usize),
    total: usize,
    etag: &str,
) -> io::Result<()> {
    let len = last + 1 - first;
    let lines = format!(
        "Content-Length: {len}\r\nContent-Range: bytes {first}-{last}/{total}\r\nETag: {etag}\r\n"
    );
    head(stream, "206 Partial Content", &lines)
}

/// A head with these lines, each with its end.
pub fn head(stream: &mut TcpStream, status: &str, lines: &str) -> io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status}\r\n{lines}\r\n").as_bytes())
}

/// The same bytes until the client goes away.
pub fn for_ever(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    loop {
        stream.write_all(bytes)?;
    }
}
