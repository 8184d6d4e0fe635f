//! A reader that fills structs the way Go's decoder does.
//!
//! Imports the errors of its parent. A struct takes its fields through [`Fields`]; a field seen twice is filled twice,
//! so that scalars keep the last value and objects merge, as in Go.

use std::collections::BTreeMap;

use super::{JsonError, JsonProblem, MAX_ENTRIES, MAX_LIST, MAX_NESTING, base64};

/// A struct that can be filled from an object.
pub(crate) trait Fields: Default {
    /// Reads the value of `key` into its field, or skips it.
    ///
    /// # Errors
    /// When the value is malformed or of another type.
    fn fill(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), JsonError>;
}

/// Which of `names` a key means: the same one, else one that differs in case only, as Go folds case.
pub(crate) fn field<'n>(key: &str, names: &[&'n str]) -> Option<&'n str> {
    let exact = names.iter().find(|name| **name == key);
    exact.or_else(|| names.iter().find(|name| folds_to(key, name))).copied()
}

/// Whether `key` folds to the ASCII `name`. Two letters outside ASCII fold into it: `ſ` to `S` and the Kelvin sign to `K`.
fn folds_to(key: &str, name: &str) -> bool {
    let folded = key.chars().map(|letter| match letter {
        '\u{17f}' => 'S',
        '\u{212a}' => 'K',
        other => other.to_ascii_uppercase(),
    });
    folded.eq(name.chars().map(|letter| letter.to_ascii_uppercase()))
}

/// Reads one document from its start.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    nesting: usize,
}

impl<'a> Reader<'a> {
    /// Begins at the first byte of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, nesting: 0 }
    }

    /// Fills a struct from the whole document, which must end there.
    pub(crate) fn document<T: Fields>(bytes: &'a [u8]) -> Result<T, JsonError> {
        let mut reader = Self::new(bytes);
        let mut document = T::default();
        reader.fields(&mut document)?;
        reader.blank();
        if reader.at == bytes.len() { Ok(document) } else { Err(reader.error(JsonProblem::Trailing)) }
    }

    /// Fills a struct from the first value of the document; whatever follows is ignored.
    pub(crate) fn first<T: Fields>(bytes: &'a [u8]) -> Result<T, JsonError> {
        let mut document = T::default();
        Self::new(bytes).fields(&mut document)?;
        Ok(document)
    }

    /// Fills `target` from an object; `null` leaves it as it is.
    pub(crate) fn fields<T: Fields>(&mut self, target: &mut T) -> Result<(), JsonError> {
        self.object("an object", |reader, key| target.fill(key, reader)).map(drop)
    }

    /// As [`Self::fields`], where `null` means absent.
    pub(crate) fn optional<T: Fields>(&mut self, target: &mut Option<T>) -> Result<(), JsonError> {
        if self.null() {
            *target = None;
            return Ok(());
        }
        self.fields(target.get_or_insert_default())
    }

    /// Reads a string; `null` leaves it as it is.
    pub(crate) fn string(&mut self, target: &mut String) -> Result<(), JsonError> {
        if !self.null() {
            *target = self.text("a string")?;
        }
        Ok(())
    }

    /// Reads a 64-bit integer, written without fraction or exponent; `null` leaves it as it is.
    pub(crate) fn integer(&mut self, target: &mut i64) -> Result<(), JsonError> {
        if self.null() {
            return Ok(());
        }
        let error = self.error(JsonProblem::Type("a 64-bit integer"));
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return Err(error);
        }
        let digits = self.number()?;
        *target = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(error)?;
        Ok(())
    }

    /// Reads base64; `null` empties it.
    pub(crate) fn base64(&mut self, target: &mut Vec<u8>) -> Result<(), JsonError> {
        if self.null() {
            target.clear();
            return Ok(());
        }
        let error = self.error(JsonProblem::Type("base64"));
        *target = base64::decode(&self.text("base64")?).ok_or(error)?;
        Ok(())
    }

    /// Reads a list of strings; `null` empties it, and inside it stands for an empty one.
    pub(crate) fn strings(&mut self, target: &mut Vec<String>) -> Result<(), JsonError> {
        let mut filled = Some(std::mem::take(target));
        self.list(&mut filled, Self::string)?;
        *target = filled.unwrap_or_default();
        Ok(())
    }

    /// Reads a list of structs; `null` makes it absent.
    pub(crate) fn structs<T: Fields>(&mut self, target: &mut Option<Vec<T>>) -> Result<(), JsonError> {
        self.list(target, |reader, element| reader.fields(element))
    }

    /// Reads a map of strings; `null` empties it, and inside it stands for an empty string.
    pub(crate) fn map(&mut self, target: &mut BTreeMap<String, String>) -> Result<(), JsonError> {
        if self.null() {
            target.clear();
            return Ok(());
        }
        self.object("an object", |reader, key| {
            let mut value = String::new();
            reader.string(&mut value)?;
            target.insert(key.to_owned(), value);
            if target.len() > MAX_ENTRIES { Err(reader.error(JsonProblem::Entries)) } else { Ok(()) }
        })
        .map(drop)
    }

    /// Reads a list. Elements that are there from an earlier key of the same name are filled anew, not replaced.
    fn list<T: Default>(
        &mut self,
        target: &mut Option<Vec<T>>,
        mut element: impl FnMut(&mut Self, &mut T) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        if self.null() {
            *target = None;
            return Ok(());
        }
        self.expect(b'[', "a list")?;
        self.enter()?;
        let list = target.get_or_insert_default();
        let mut count = 0;
        if !self.eat(b']') {
            loop {
                if count == list.len() {
                    if count == MAX_LIST {
                        return Err(JsonError { offset: self.at, problem: JsonProblem::List });
                    }
                    list.push(T::default());
                }
                element(self, &mut list[count])?;
                count += 1;
                if self.eat(b']') {
                    break;
                }
                self.require(b',')?;
            }
        }
        list.truncate(count);
        self.nesting -= 1;
        Ok(())
    }

    /// Reads an object member by member; `Ok(false)` when `null` stands there.
    fn object(
        &mut self,
        wanted: &'static str,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), JsonError>,
    ) -> Result<bool, JsonError> {
        if self.null() {
            return Ok(false);
        }
        self.expect(b'{', wanted)?;
        self.enter()?;
        if !self.eat(b'}') {
            loop {
                self.blank();
                let key = if self.peek() == Some(b'"') { self.text("a key")? } else { return Err(self.syntax()) };
                self.require(b':')?;
                member(self, &key)?;
                if self.eat(b'}') {
                    break;
                }
                self.require(b',')?;
            }
        }
        self.nesting -= 1;
        Ok(true)
    }

    /// Passes over one value, whatever it is, but checks its grammar.
    pub(crate) fn skip(&mut self) -> Result<(), JsonError> {
        self.blank();
        match self.peek() {
            Some(b'{') => self.object("an object", |reader, _| reader.skip()).map(drop),
            Some(b'[') => {
                self.at += 1;
                self.enter()?;
                if !self.eat(b']') {
                    loop {
                        self.skip()?;
                        if self.eat(b']') {
                            break;
                        }
                        self.require(b',')?;
                    }
                }
                self.nesting -= 1;
                Ok(())
            }
            Some(b'"') => self.quoted().map(drop),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => self.number().map(drop),
        }
    }

    /// Takes `null` if it stands next.
    fn null(&mut self) -> bool {
        self.blank();
        let is_null = self.bytes[self.at..].starts_with(b"null");
        if is_null {
            self.at += 4;
        }
        is_null
    }

    /// Reads a string and resolves its escapes.
    fn text(&mut self, wanted: &'static str) -> Result<String, JsonError> {
        self.blank();
        if self.peek() != Some(b'"') {
            return Err(self.mistyped(wanted));
        }
        self.quoted().map(unescape)
    }

    /// Passes over a string; gives what stands between the quotes, whose escapes are well-formed.
    fn quoted(&mut self) -> Result<&'a [u8], JsonError> {
        let start = self.at + 1;
        self.at = start;
        loop {
            match self.peek().ok_or_else(|| self.syntax())? {
                b'"' => break,
                b'\\' => {
                    let length = match self.bytes.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                        Some(b'u') if hex4(&self.bytes[self.at + 2..]).is_some() => 6,
                        _ => return Err(self.syntax()),
                    };
                    self.at += length;
                }
                ..0x20 => return Err(self.syntax()),
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Ok(&self.bytes[start..self.at - 1])
    }

    /// Passes over a number.
    fn number(&mut self) -> Result<&'a [u8], JsonError> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(&self.bytes[start..self.at])
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let count = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.syntax()) } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.syntax());
        }
        self.at += word.len();
        Ok(())
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING { Err(self.error(JsonProblem::Nesting)) } else { Ok(()) }
    }

    /// Takes `byte`, which opens a value of the `wanted` type.
    fn expect(&mut self, byte: u8, wanted: &'static str) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.mistyped(wanted)) }
    }

    fn require(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.syntax()) }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.blank();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn mistyped(&self, wanted: &'static str) -> JsonError {
        match self.peek() {
            Some(b'{' | b'[' | b'"' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => self.error(JsonProblem::Type(wanted)),
            _ => self.syntax(),
        }
    }

    fn syntax(&self) -> JsonError {
        self.error(JsonProblem::Syntax)
    }

    fn error(&self, problem: JsonProblem) -> JsonError {
        JsonError { offset: self.at, problem }
    }
}

/// Resolves the escapes of a well-formed string. Each byte that is not UTF-8, and each lone surrogate, becomes U+FFFD.
fn unescape(mut raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    while let Some(next) = raw.iter().position(|byte| *byte == b'\\') {
        push_utf8(&mut text, &raw[..next]);
        raw = &raw[next..];
        let (character, length) = match raw[1] {
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => unicode(raw),
            other => (char::from(other), 2),
        };
        text.push(character);
        raw = &raw[length..];
    }
    push_utf8(&mut text, raw);
    text
}

/// The character that `\uXXXX`, or a pair of them, stands for; and how many bytes that took.
fn unicode(raw: &[u8]) -> (char, usize) {
    let unit = hex4(&raw[2..]).unwrap_or(0xfffd);
    if let Some(character) = char::from_u32(u32::from(unit)) {
        return (character, 6);
    }
    let low = raw[6..].strip_prefix(b"\\u").and_then(hex4);
    let pair = low.and_then(|low| char::decode_utf16([unit, low]).next()?.ok());
    pair.map_or((char::REPLACEMENT_CHARACTER, 6), |character| (character, 12))
}

fn hex4(digits: &[u8]) -> Option<u16> {
    let digits = digits.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn push_utf8(text: &mut String, mut raw: &[u8]) {
    loop {
        match std::str::from_utf8(raw) {
            Ok(valid) => return text.push_str(valid),
            Err(error) => {
                let (valid, rest) = raw.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                text.push(char::REPLACEMENT_CHARACTER);
                raw = &rest[1..];
            }
        }
    }
}
