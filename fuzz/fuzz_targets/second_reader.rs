//! A second reader of JSON, after RFC 8259 and independent of `serde_json`: an oracle.

/// A value. Objects keep all their members and numbers all their digits; an exponent begins with
/// `e+` or `e-`, as `serde_json` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn member(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        members.iter().find(|member| member.0 == name).map(|member| &member.1)
    }

    pub fn string(&self) -> Option<&str> {
        if let Json::String(text) = self { Some(text) } else { None }
    }

    /// Arrays and objects in one another.
    pub fn depth(&self) -> usize {
        match self {
            Json::Array(items) => 1 + items.iter().map(Json::depth).max().unwrap_or(0),
            Json::Object(members) => {
                1 + members.iter().map(|member| member.1.depth()).max().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Whether an object, this one or one inside, has two members of one name.
    pub fn has_twins(&self) -> bool {
        match self {
            Json::Array(items) => items.iter().any(Json::has_twins),
            Json::Object(members) => members.iter().enumerate().any(|(at, (name, value))| {
                value.has_twins() || members[..at].iter().any(|earlier| earlier.0 == *name)
            }),
            _ => false,
        }
    }
}

/// Reads one value with nothing but white space around it; `None` also for more than 64 levels.
pub fn read(bytes: &[u8]) -> Option<Json> {
    let mut reader = Reader { rest: std::str::from_utf8(bytes).ok()? };
    let value = reader.value(64)?;
    reader.white_space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn white_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, start: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(start)?;
        Some(())
    }

    fn one(&mut self) -> Option<char> {
        let one = self.rest.chars().next()?;
        self.rest = &self.rest[one.len_utf8()..];
        Some(one)
    }

    fn value(&mut self, levels: usize) -> Option<Json> {
        self.white_space();
        match self.rest.bytes().next()? {
            b'n' => self.take("null").map(|()| Json::Null),
            b't' => self.take("true").map(|()| Json::Bool(true)),
            b'f' => self.take("false").map(|()| Json::Bool(false)),
            b'"' => self.string().map(Json::String),
            b'[' => {
                let mut items = Vec::new();
                self.list('[', ']', |reader| {
                    items.push(reader.value(levels.checked_sub(1)?)?);
                    Some(())
                })?;
                Some(Json::Array(items))
            }
            b'{' => {
                let mut members = Vec::new();
                self.list('{', '}', |reader| {
                    reader.white_space();
                    let name = reader.string()?;
                    reader.white_space();
                    reader.take(":")?;
                    members.push((name, reader.value(levels.checked_sub(1)?)?));
                    Some(())
                })?;
                Some(Json::Object(members))
            }
            _ => self.number(),
        }
    }

    fn list(
        &mut self,
        begin: char,
        end: char,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.take(begin.encode_utf8(&mut [0; 4]))?;
        self.white_space();
        if self.rest.starts_with(end) {
            return self.one().map(drop);
        }
        loop {
            item(self)?;
            self.white_space();
            match self.one()? {
                ',' => {}
                other => return (other == end).then_some(()),
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut text = String::new();
        loop {
            match self.one()? {
                '"' => return Some(text),
                '\\' => text.push(self.escape()?),
                '\0'..='\x1f' => return None,
                plain => text.push(plain),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.one()? {
            same @ ('"' | '\\' | '/') => same,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.hex()?;
                // A surrogate means something beside its other half only.
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first);
                }
                self.take("\\u")?;
                let second = self.hex().filter(|second| (0xdc00..0xe000).contains(second))?;
                return char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |sum, _| Some(sum * 16 + self.one()?.to_digit(16)?))
    }

    fn number(&mut self) -> Option<Json> {
        let mut text = String::new();
        if self.take("-").is_some() {
            text.push('-');
        }
        match self.digits()? {
            // No zero stands before another digit.
            digits if digits.len() > 1 && digits.starts_with('0') => return None,
            digits => text.push_str(digits),
        }
        if self.take(".").is_some() {
            text.push('.');
            text.push_str(self.digits()?);
        }
        if self.take("e").or_else(|| self.take("E")).is_some() {
            let minus = self.take("-").is_some();
            let _ = minus || self.take("+").is_some();
            text.push_str(if minus { "e-" } else { "e+" });
            text.push_str(self.digits()?);
        }
        Some(Json::Number(text))
    }

    fn digits(&mut self) -> Option<&str> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!digits.is_empty()).then_some(digits)
    }
}
