//! Requests of HTTP/1.1, read by hand.
//!
//! Imports nothing of this crate. Enough of it for this project's client, and for tests that break the rest.

use std::{
    collections::HashMap,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The path behind `/api/v0/`.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<(String, String)>,
    /// Its headers, names in lower case.
    pub headers: HashMap<String, String>,
}

impl Asked {
    /// The first argument of this name.
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A connection of either kind.
pub(super) trait Stream: Read + Write + Send {
    fn end(&self);
}

impl Stream for TcpStream {
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Stream for UnixStream {
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// The head of a request; `None` when no more come.
pub(super) fn request(input: &mut BufReader<impl Read>) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let command = path.trim_start_matches("/api/v0/").to_owned();
    let arguments = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| {
        let value = value.replace('+', " ").replace("%2F", "/").replace("%3A", ":").replace("%40", "@");
        (key.to_owned(), value)
    });
    let arguments = arguments.collect();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Ok(Some(Asked { command, arguments, headers }))
}

/// The body of a request, of which no more than `limit` bytes are taken.
pub(super) fn body(input: &mut BufReader<impl Read>, asked: &Asked, limit: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = asked.headers.get("content-length").and_then(|text| text.parse::<u64>().ok()) {
        input.take(length).read_to_end(&mut body)?;
        return Ok(body);
    }
    if !asked.headers.contains_key("transfer-encoding") {
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        input.take(length).read_to_end(&mut body)?;
        input.read_line(&mut line)?;
        if body.len() > limit {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if length == 0 {
            return Ok(body);
        }
    }
}

/// The only part of a form.
pub(super) fn part(form: &[u8]) -> Option<&[u8]> {
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let boundary = &form[..find(form, b"\r\n")?];
    let start = find(form, b"\r\n\r\n")? + 4;
    let end = form.len() - b"--\r\n".len() - boundary.len() - b"\r\n".len();
    (start <= end && form.ends_with(b"--\r\n")).then(|| &form[start..end])
}
