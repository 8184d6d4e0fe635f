//! A small client of HTTP that shows every byte, and lets a test be as rude as it wants.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest time without a byte from the other side.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The head of an answer; the body is read from it.
pub struct Answer {
    /// The status, 200 for instance.
    pub status: u16,
    headers: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
    is_head: bool,
}

/// Connects, with the time-outs of this client.
///
/// # Errors
/// What the system says.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// The head of a request, as it is sent.
pub fn head(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

/// Sends a request on a connection of its own.
///
/// # Errors
/// What the system says, or when the answer is not HTTP.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = connect(address)?;
    let length = body.len().to_string();
    let mut headers = headers.to_vec();
    if !matches!(method, "GET" | "HEAD") {
        headers.push(("Content-Length", &length));
    }
    stream.write_all(head(address, method, path, &headers).as_bytes())?;
    stream.write_all(body)?;
    Answer::read(stream, method == "HEAD")
}

/// Gets a path whole; its status and its body.
///
/// # Errors
/// As [`request`]; also when the body ends early.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let answer = request(address, "GET", path, &[], &[])?;
    Ok((answer.status, answer.body()?))
}

impl Answer {
    /// Reads the head of an answer.
    ///
    /// # Errors
    /// As [`request`].
    pub fn read(stream: TcpStream, is_head: bool) -> io::Result<Self> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer but `{line}`")))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 || line.trim().is_empty() {
                return Ok(Self { status, headers, stream, is_head });
            }
            if let Some((name, value)) = line.trim_end().split_once(':') {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }

    /// The value of a header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Reads some of the body; as a reader does.
    ///
    /// # Errors
    /// What the system says.
    pub fn some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    /// The body, whole.
    ///
    /// # Errors
    /// When it ends before its announced length.
    pub fn body(mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if self.is_head {
            return Ok(body);
        }
        let length: u64 = self.header("content-length").parse().unwrap_or(0);
        (&mut self.stream).take(length).read_to_end(&mut body)?;
        if body.len() as u64 == length { Ok(body) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
