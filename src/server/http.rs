//! A small HTTP/1.1 server for operators: few connections, short requests, one thread each while it lasts.
//!
//! It stands beside the data path: its threads have low priority and are bounded in number, every read and write has a
//! deadline, and nothing a client sends is kept beyond its bounds. Requests are parsed by `httparse`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::io::sys;
use crate::words::date::Date;

/// Connections served at once; one more is told so and closed.
pub(super) const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request up to its body.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Bytes of a body. No command here reads one, so it is only passed over.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// From a request's first byte to its last.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// How long a reader may take nothing of an answer.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// Requests of one connection.
const REQUESTS_MAX: u32 = 1000;
/// What is still read of a request that was refused, so that the refusal arrives.
const LINGER_BYTES_MAX: usize = 256 << 10;
const LINGER_WAIT: Duration = Duration::from_millis(500);
/// How polite the threads are (`nice`).
const NICE: i32 = 10;
const STACK_BYTES: usize = 512 << 10;
/// After a failed accept, which is nearly always a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request without its body.
#[derive(Debug)]
pub(super) struct Request {
    pub method: String,
    /// Decoded.
    pub path: String,
    /// Decoded; the first of a name counts.
    query: Vec<(String, String)>,
    pub authorization: Option<String>,
    pub peer: IpAddr,
    /// It waits to be asked for its body.
    expects: bool,
    body_bytes: u64,
    keep_alive: bool,
}

impl Request {
    pub(super) fn argument(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Response {
    status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Bytes(Vec<u8>),
    File { file: File, bytes: u64 },
}

impl Response {
    pub(super) fn new(status: u16, content_type: &'static str, body: String) -> Response {
        Response { status, content_type, headers: Vec::new(), body: Body::Bytes(body.into_bytes()) }
    }

    /// The first `bytes` of a file.
    pub(super) fn file(file: File, bytes: u64) -> Response {
        let body = Body::File { file, bytes };
        Response { status: 200, content_type: "application/octet-stream", headers: Vec::new(), body }
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Response {
        self.headers.push((name, value));
        self
    }

    pub(super) fn plain(status: u16) -> Response {
        Response::new(status, "text/plain", format!("{status} {}\n", reason(status)))
    }
}

/// Answers requests, on many threads at once.
pub(super) trait Handler: Send + Sync + 'static {
    /// GET and POST alone arrive here; HEAD is a GET whose body is left out.
    fn handle(&self, request: &Request) -> Response;
}

/// Serves on a bound listener until the process ends. `idle` is how long a connection may be silent between requests.
pub(super) fn serve(
    name: &'static str,
    listener: TcpListener,
    idle: Duration,
    handler: Arc<dyn Handler>,
) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
        sys::lower_thread_priority(NICE);
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            match listener.accept() {
                Ok((stream, peer)) => begin(name, stream, peer, idle, &handler, &open),
                Err(error) => {
                    tracing::debug!(%error, "{name}: a connection could not be accepted");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    })?;
    Ok(())
}

fn begin(
    name: &str,
    stream: TcpStream,
    peer: SocketAddr,
    idle: Duration,
    handler: &Arc<dyn Handler>,
    open: &Arc<AtomicUsize>,
) {
    let place = Place::new(open);
    if open.load(Ordering::Acquire) > CONNECTIONS_MAX {
        tracing::warn!(%peer, "{name}: more than {CONNECTIONS_MAX} connections; one is refused");
        // The thread that accepts waits for nobody.
        let _ = stream.set_nonblocking(true);
        let _ = (&stream)
            .write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let handler = handler.clone();
    let begun = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
        let _place = place;
        sys::lower_thread_priority(NICE);
        // Whatever a client does to its connection is its own affair.
        if let Err(error) = converse(&stream, peer.ip().to_canonical(), idle, &*handler) {
            tracing::debug!(%peer, %error, "an operator's connection ended");
        }
    });
    if let Err(error) = begun {
        tracing::warn!(%error, "{name}: no thread for a connection");
    }
}

/// One of the connections that may be open.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(open: &Arc<AtomicUsize>) -> Place {
        open.fetch_add(1, Ordering::AcqRel);
        Place(open.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Serves one connection to its end.
fn converse(stream: &TcpStream, peer: IpAddr, idle: Duration, handler: &dyn Handler) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_WAIT))?;
    let mut input = Vec::new();
    for served in 1..=REQUESTS_MAX {
        let (response, is_head, keep_alive) = match read_head(stream, &mut input, peer, idle)? {
            None => return Ok(()),
            Some(Err(status)) => (Response::plain(status), false, false),
            Some(Ok(request)) => {
                let is_head = request.method == "HEAD";
                let passed_over = pass_over_body(stream, &mut input, &request)?;
                let keep_alive = passed_over && request.keep_alive && served < REQUESTS_MAX;
                (dispatch(&request, handler), is_head, keep_alive)
            }
        };
        write_response(stream, response, is_head, keep_alive)?;
        if !keep_alive {
            break;
        }
    }
    linger(stream);
    Ok(())
}

fn dispatch(request: &Request, handler: &dyn Handler) -> Response {
    match request.method.as_str() {
        "GET" | "HEAD" | "POST" => handler.handle(request),
        // Source: ZooKeeper `JettyAdminServer#constrainTraceMethod`.
        "TRACE" => Response::new(403, "text/plain", String::new()),
        "OPTIONS" => {
            Response::new(200, "text/plain", String::new()).header("Allow", "GET, HEAD, POST, OPTIONS".into())
        }
        _ => {
            Response::new(405, "text/plain", String::new()).header("Allow", "GET, HEAD, POST, OPTIONS".into())
        }
    }
}

/// The next request, or the status of its refusal; `None` at the end of the connection.
fn read_head(
    stream: &TcpStream,
    input: &mut Vec<u8>,
    peer: IpAddr,
    idle: Duration,
) -> io::Result<Option<Result<Request, u16>>> {
    let mut deadline = Instant::now() + if input.is_empty() { idle } else { REQUEST_WAIT };
    loop {
        match parse(input, peer) {
            Parsed::Whole { request, head_bytes } => {
                input.drain(..head_bytes);
                return Ok(Some(Ok(request)));
            }
            Parsed::Bad(status) => return Ok(Some(Err(status))),
            Parsed::Partial if input.len() > HEAD_BYTES_MAX => return Ok(Some(Err(431))),
            Parsed::Partial => {}
        }
        let was_idle = input.is_empty();
        match read_some(stream, input, deadline) {
            Ok(0) => return Ok(None),
            Ok(_) if was_idle => deadline = Instant::now() + REQUEST_WAIT,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Ok(if input.is_empty() { None } else { Some(Err(408)) });
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads what there is, waiting until the deadline at most.
fn read_some(mut stream: &TcpStream, input: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut buffer) {
            Ok(count) => {
                input.extend_from_slice(&buffer[..count]);
                return Ok(count);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

enum Parsed {
    Partial,
    Whole {
        request: Request,
        head_bytes: usize,
    },
    /// With the status to refuse it with.
    Bad(u16),
}

fn parse(input: &[u8], peer: IpAddr) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_bytes = match head.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(431),
        Err(_) => return Parsed::Bad(400),
    };
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Parsed::Bad(400);
    };
    let named = |name: &'static str| {
        head.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    // Whose end cannot be told from a length is refused; what follows would be taken for a request.
    if named("Transfer-Encoding").next().is_some() {
        return Parsed::Bad(411);
    }
    let mut lengths = named("Content-Length").map(|value| {
        let text = std::str::from_utf8(value).ok()?.trim();
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?
    });
    let length = lengths.next();
    if length == Some(None) || lengths.next().is_some() {
        return Parsed::Bad(400);
    }
    let has_token = |value: &[u8], token: &str| {
        String::from_utf8_lossy(value).split(',').any(|word| word.trim().eq_ignore_ascii_case(token))
    };
    let says = |token: &'static str| named("Connection").any(|value| has_token(value, token));
    // A proxy's form of the target names the host first.
    let target = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name, true), decode(value, true))
    });
    let request = Request {
        method: method.to_owned(),
        path: decode(path, false),
        query: query.collect(),
        authorization: named("Authorization").next().map(|value| String::from_utf8_lossy(value).into_owned()),
        peer,
        expects: named("Expect").next().is_some(),
        body_bytes: length.flatten().unwrap_or(0),
        keep_alive: if version == 1 { !says("close") } else { says("keep-alive") },
    };
    Parsed::Whole { request, head_bytes }
}

/// Undoes `%xx`, and in queries `+`.
fn decode(text: &str, plus_is_blank: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = pair.filter(|_| bytes[at] == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if plus_is_blank && bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads the body away. False: it is too long, or its sender waits to be asked for it, so it ends the connection.
fn pass_over_body(stream: &TcpStream, input: &mut Vec<u8>, request: &Request) -> io::Result<bool> {
    if request.expects || request.body_bytes > BODY_BYTES_MAX {
        return Ok(false);
    }
    let wanted = request.body_bytes as usize;
    let deadline = Instant::now() + REQUEST_WAIT;
    while input.len() < wanted {
        if read_some(stream, input, deadline)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    input.drain(..wanted);
    Ok(true)
}

fn write_response(
    mut stream: &TcpStream,
    response: Response,
    is_head: bool,
    keep_alive: bool,
) -> io::Result<()> {
    let Response { status, content_type, headers, body } = response;
    let bytes = match &body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::File { bytes, .. } => *bytes,
    };
    let mut out = format!("HTTP/1.1 {status} {}\r\nDate: {}\r\n", reason(status), http_date());
    for (name, value) in &headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    if bytes > 0 {
        out.push_str(&format!("Content-Type: {content_type}\r\n"));
    }
    out.push_str(&format!("Content-Length: {bytes}\r\nServer: ringkeeper\r\n"));
    if !keep_alive {
        out.push_str("Connection: close\r\n");
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    match body {
        Body::Bytes(bytes) if !is_head => {
            out.extend_from_slice(&bytes);
            stream.write_all(&out)
        }
        Body::File { file, bytes } if !is_head => {
            stream.write_all(&out)?;
            let copied = io::copy(&mut file.take(bytes), &mut stream)?;
            // Less than was promised: only the end of the connection tells.
            if copied == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        }
        _ => stream.write_all(&out),
    }
}

/// Lets the last answer arrive: what the client still sends is read for a moment, or the reset would overtake it.
fn linger(stream: &TcpStream) {
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let deadline = Instant::now() + LINGER_WAIT;
    let mut rest = Vec::new();
    let mut total = 0;
    while let Ok(count) = read_some(stream, &mut rest, deadline)
        && count > 0
        && total < LINGER_BYTES_MAX
    {
        total += count;
        rest.clear();
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

fn http_date() -> String {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    Date::of_ms(ms).http()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Handler for Echo {
        fn handle(&self, request: &Request) -> Response {
            let Request { method, path, .. } = request;
            if path == "/file" {
                let file = File::open("/dev/zero").unwrap();
                let asker = format!("{} {:?}", request.peer, request.authorization);
                return Response::file(file, 100_000).header("asker", asker);
            }
            let argument = request.argument("a").unwrap_or("-");
            Response::new(200, "text/plain", format!("{method} {path} {argument}"))
        }
    }

    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        serve("test", listener, Duration::from_secs(60), Arc::new(Echo)).unwrap();
        address
    }

    fn say(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn status(address: SocketAddr, request: &str) -> String {
        say(address, request).lines().next().unwrap_or("nothing").to_owned()
    }

    #[test]
    fn requests_follow_each_other_on_a_connection() {
        let address = server();
        let text = say(
            address,
            "GET /commands/a%20b?x=1&a=%2f+&a=2 HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\ncontent-length: 3\r\n\r\n\
             abcHEAD /c HTTP/1.1\r\n\r\nGET http://h:1/d HTTP/1.0\r\n\r\nGET /never HTTP/1.1\r\n\r\n",
        );
        assert!(text.contains("\r\n\r\nGET /commands/a b / "), "{text}");
        assert!(text.contains("POST /b -") && text.contains("GET /d -"), "{text}");
        assert!(text.contains("Content-Length: 9\r\n") && !text.contains("HEAD /c"), "{text}");
        assert!(!text.contains("never") && text.matches("Connection: close").count() == 1, "{text}");
    }

    #[test]
    fn files_are_streamed() {
        let text = say(server(), "GET /file HTTP/1.0\r\nauthorization: digest a:b\r\n\r\n");
        assert!(text.contains("asker: 127.0.0.1 Some(\"digest a:b\")\r\n"), "{:.500}", text);
        assert!(text.contains("Content-Length: 100000\r\n"), "{:.500}", text);
        assert_eq!(text.bytes().filter(|byte| *byte == 0).count(), 100_000);
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        let address = server();
        for (request, expected) in [
            ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400 Bad Request"),
            ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".into(), "HTTP/1.1 400 Bad Request"),
            (
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(),
                "HTTP/1.1 400 Bad Request",
            ),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "HTTP/1.1 411 Length Required"),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\nGET".into(), "HTTP/1.1 200 OK"),
            (
                format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * HEAD_BYTES_MAX)),
                "HTTP/1.1 431 Request Header Fields Too Large",
            ),
            (
                format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(HEADERS_MAX + 1)),
                "HTTP/1.1 431 Request Header Fields Too Large",
            ),
            ("TRACE / HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 403 Forbidden"),
            ("PUT / HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 405 Method Not Allowed"),
            (String::new(), "nothing"),
        ] {
            assert_eq!(status(address, &request), expected, "{:.60}", request);
        }
    }

    /// One more connection than there may be is refused, and there is room again when one ends.
    #[test]
    fn connections_are_bounded() {
        let address = server();
        let mut streams: Vec<TcpStream> =
            (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(address).unwrap()).collect();
        for stream in &mut streams {
            // Served, so it has its place.
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            assert!(stream.read(&mut [0; 512]).unwrap() > 0);
        }
        let mut refused = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut refused).unwrap();
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        drop(streams.pop());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            // Refused while the request is on its way: that connection may end with a reset, and no answer.
            let mut stream = TcpStream::connect(address).unwrap();
            let mut text = String::new();
            let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
            let _ = stream.read_to_string(&mut text);
            if text.starts_with("HTTP/1.1 200 ") {
                break;
            }
            assert!(Instant::now() < deadline, "no room again");
        }
    }
}
