// SPDX-License-Identifier: MIT OR Apache-2.0

//! The server as its clients see it, the bad ones among them.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::super::http::Http;
use super::*;
use crate::clients::Service;
use crate::clients::MOST_CLIENTS;
use crate::counters::count;
use crate::counters::Counters;

/// The deadline of what happens at once, on this machine.
fn soon() -> Duration {
    ondemand_deadline::scaled(Duration::from_secs(20))
}
const GET: &str = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";

fn start(within: Duration) -> (SocketAddr, Arc<Counters>) {
    let server = MetricsServer::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let MetricsAddress::Tcp(address) = server.address().unwrap() else {
        panic!("{server:?}");
    };
    let counters = Arc::new(Counters::create().unwrap());
    let reporter = Reporter::new("/cache".into(), Arc::clone(&counters));
    let server = server.with_deadline(within);
    server.start(Arc::new(reporter)).unwrap();
    (address, counters)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(soon())).unwrap();
    stream.set_write_timeout(Some(soon())).unwrap();
    stream
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until the server closes a connection that was not answered.
fn wait_for_end(mut stream: TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => assert!(rest.is_empty()),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn the_numbers_of_this_moment_are_served() {
    let (address, counters) = start(CLIENT_WITHIN);
    count(&counters.reads, 5);
    let answer = ask(address, GET);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\nondemandd_reads_total 5\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let len = format!("Content-Length: {}", body.len());
    assert!(head.contains(&len), "{head}");
    count(&counters.reads, 1);
    let answer = ask(address, "GET /metrics?x=1 HTTP/1.0\r\n\r\n");
    assert!(answer.contains("\nondemandd_reads_total 6\n"), "{answer}");
    let head = ask(address, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.contains("200 OK") && head.ends_with("\r\n\r\n"));
}

#[test]
fn a_client_of_an_earlier_program_is_answered_by_the_next() {
    for address in ["127.0.0.1:0", "/"] {
        let root = tempfile::tempdir().unwrap();
        let address = match address {
            "/" => MetricsAddress::Unix(root.path().join("socket")),
            other => other.parse().unwrap(),
        };
        let server = MetricsServer::bind(&address).unwrap();
        let (address, socket) = (server.address().unwrap(), server.socket().unwrap());
        // It waits in the queue of a program that takes nobody any more. `exec` drops nothing.
        let mut client: Box<dyn crate::clients::Stream> = match &address {
            MetricsAddress::Tcp(address) => Box::new(connect(*address)),
            MetricsAddress::Unix(path) => Box::new(UnixStream::connect(path).unwrap()),
        };
        std::mem::forget(server);
        let next = MetricsServer::resume(address.clone(), socket);
        assert_eq!(next.address().unwrap(), address);
        let counters = Arc::new(Counters::create().unwrap());
        let reporter = Reporter::new("/cache".into(), counters);
        next.start(Arc::new(reporter)).unwrap();
        client.write_all(GET.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

#[test]
fn other_requests_get_an_error() {
    let (address, _counters) = start(CLIENT_WITHIN);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(Http::LONGEST_REQUEST));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics/../../etc HTTP/1.1\r\n\r\n", "404"),
        (
            "POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
            "405",
        ),
        ("GET /metrics\r\n\r\n", "400"),
        ("GET /metrics HTTP/2.0\r\n\r\n", "505"),
        ("\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}\0 \0 \0\r\n\r\n", "505"),
        (&long, "431"),
    ] {
        let answer = ask(address, request);
        let start = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&start), "{request:?}: {answer}");
    }
}

#[test]
fn a_request_may_come_in_pieces() {
    let (address, _counters) = start(CLIENT_WITHIN);
    let mut stream = connect(address);
    for byte in GET.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("# EOF"), "{answer}");
}

#[test]
fn a_client_that_says_nothing_holds_up_nobody_and_is_given_up() {
    // Who asks has as long, which must be enough for this process to ask.
    let (address, _counters) = start(soon() / 20);
    let silent = connect(address);
    let mut half = connect(address);
    half.write_all(b"GET /metrics HT").unwrap();
    // It asks and never reads: the answer waits in the socket.
    let mut deaf = connect(address);
    deaf.write_all(GET.as_bytes()).unwrap();
    assert!(ask(address, GET).contains("200 OK"));
    wait_for_end(silent);
    wait_for_end(half);
    assert!(ask(address, GET).contains("200 OK"));
}

#[test]
fn many_silent_clients_do_not_keep_others_out() {
    // No deadline helps here.
    let (address, _counters) = start(soon() * 10);
    let mut silent: Vec<TcpStream> = (0..=MOST_CLIENTS).map(|_| connect(address)).collect();
    let answer = ask(address, GET);
    assert!(answer.contains("200 OK"), "{answer}");
    // The first one had to go.
    wait_for_end(silent.remove(0));
}

#[test]
fn a_unix_socket_serves_as_well() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("metrics");
    let server = MetricsServer::bind(&MetricsAddress::Unix(path.clone())).unwrap();
    let counters = Arc::new(Counters::create().unwrap());
    let reporter = Reporter::new("/cache".into(), counters);
    server.start(Arc::new(reporter)).unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(soon())).unwrap();
    stream.write_all(GET.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("ondemandd_opens_total 0"), "{answer}");
}
