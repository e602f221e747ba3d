//! The part of HTTP/1.1 that a read-only page needs: a request's head in, one answer out, then the connection closes.
//!
//! A head has a size and a time to arrive in, so a slow or endless one holds a thread for seconds at most.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of a request's head.
const HEAD: usize = 16 << 10;
/// Headers of a request.
const HEADERS: usize = 64;
/// Time for a request to arrive.
const ARRIVE: Duration = Duration::from_secs(10);
/// Time for an answer to be taken.
const TAKE: Duration = Duration::from_secs(30);
/// Time for the rest of a request once it is answered.
const LINGER: Duration = Duration::from_millis(500);

/// A request without its body, which is never read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// `GET`, ...
    pub method: String,
    /// What is before the `?`, decoded.
    pub path: String,
    /// The keys and values behind the `?`, decoded.
    pub query: BTreeMap<String, String>,
    /// By their names in small letters.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// A header by its name in small letters; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A value behind the `?`; empty where there is none.
    pub fn value(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    /// Beyond those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// 200.
    pub fn ok(content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
        Response { status: 200, content_type, headers: Vec::new(), body: body.into() }
    }

    /// A line of text for a person.
    pub fn refuse(status: u16, text: &str) -> Response {
        Response {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: Vec::new(),
            body: format!("{text}\n").into(),
        }
    }

    fn reason(&self) -> &'static str {
        match self.status {
            200 => "OK",
            303 => "See Other",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        }
    }
}

/// Reads a request's head; the refusal where it is none.
pub fn read(stream: &mut TcpStream) -> Result<Request, Response> {
    let bad = |text: &str| Response::refuse(400, text);
    let start = Instant::now();
    let (mut head, mut chunk) = (Vec::new(), [0; 2048]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = ARRIVE.saturating_sub(start.elapsed());
        if left.is_zero() || head.len() > HEAD {
            return Err(bad("the request is too long, or too slow"));
        }
        stream.set_read_timeout(Some(left)).map_err(|_| bad("the connection broke"))?;
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return Err(bad("the request is not whole")),
            Ok(n) => head.extend_from_slice(&chunk[..n]),
        }
    }
    parse(&head).ok_or_else(|| bad("this is no request"))
}

/// A request from its head.
pub fn parse(head: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    if !parsed.parse(head).ok()?.is_complete() {
        return None;
    }
    let (path, query) = parsed.path?.split_once('?').unwrap_or((parsed.path?, ""));
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(&key.replace('+', " "))?, decode(&value.replace('+', " "))?))
    };
    let mut named = BTreeMap::new();
    for header in parsed.headers.iter() {
        let value = std::str::from_utf8(header.value).ok()?.trim().to_string();
        // two hosts, or two tokens: which one counts is not for us to guess
        if named.insert(header.name.to_ascii_lowercase(), value).is_some() && header.name.eq_ignore_ascii_case("host") {
            return None;
        }
    }
    Some(Request {
        method: parsed.method?.to_string(),
        path: decode(path)?,
        query: query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect::<Option<_>>()?,
        headers: named,
    })
}

/// Text with its `%41` decoded.
fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Sends an answer; `body` is false for a `HEAD`. Nobody to send it to is no failure.
pub fn write(stream: &mut TcpStream, response: &Response, body: bool) {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, response.reason());
    let always = [
        ("Content-Type", response.content_type),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        (
            "Content-Security-Policy",
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; \
             connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        ("Connection", "close"),
    ];
    for (name, value) in always.into_iter().chain(response.headers.iter().map(|(name, value)| (*name, value.as_str())))
    {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", response.body.len()));
    let _ = stream.set_write_timeout(Some(TAKE));
    let _ = stream.write_all(head.as_bytes());
    if body {
        let _ = stream.write_all(&response.body);
    }
    let _ = stream.flush();
}

/// Ends a connection. What is still coming is read and dropped for a moment: a close before that would take the answer
/// with it.
pub fn close(mut stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(LINGER));
    let (start, mut chunk) = (Instant::now(), [0; 2048]);
    while start.elapsed() < LINGER && stream.read(&mut chunk).is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read() {
        let request =
            parse(b"GET /api/run?run=a%20b+c&trial=1 HTTP/1.1\r\nHost: localhost:1\r\nX-A: 1\r\n\r\n").expect("one");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/api/run"));
        assert_eq!((request.value("run"), request.value("trial"), request.value("none")), ("a b c", "1", ""));
        assert_eq!((request.header("host"), request.header("x-a")), ("localhost:1", "1"));
    }

    #[test]
    fn what_is_no_request_is_none() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET /%zz HTTP/1.1\r\n\r\n",
            "GET /%f HTTP/1.1\r\n\r\n",
            "GET /%ff HTTP/1.1\r\n\r\n",
            "GET /\r\n",
            "\r\n\r\n",
            "GET / HTTP/1.1\r\nA\r\n\r\n",
        ] {
            assert_eq!(parse(head.as_bytes()), None, "{head:?}");
        }
    }
}
