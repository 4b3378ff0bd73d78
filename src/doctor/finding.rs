//! Pure: what doctor has found, and how it is printed.
//!
//! Everything from outside is escaped here, for terminals and for JSON alike.

use serde_json::{Value, json};

use crate::logging::line::{ascii_json, printable_line};

/// The longest sentence, in characters.
const LONGEST: usize = 600;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Ok,
    Warning,
    Failure,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// One line of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// What was checked, in one word, or the name of a relying party.
    pub(crate) subject: &'static str,
    pub(crate) says: String,
    /// What to do; empty for what is ok.
    pub(crate) what_to_do: String,
}

impl Finding {
    pub(crate) fn ok(subject: &'static str, says: impl Into<String>) -> Self {
        let (says, what_to_do) = (cut(&says.into()), String::new());
        Self { level: Level::Ok, subject, says, what_to_do }
    }

    pub(crate) fn warning(
        subject: &'static str,
        says: impl Into<String>,
        what_to_do: impl Into<String>,
    ) -> Self {
        let (says, what_to_do) = (cut(&says.into()), cut(&what_to_do.into()));
        Self { level: Level::Warning, subject, says, what_to_do }
    }

    pub(crate) fn failure(
        subject: &'static str,
        says: impl Into<String>,
        what_to_do: impl Into<String>,
    ) -> Self {
        Self { level: Level::Failure, ..Self::warning(subject, says, what_to_do) }
    }
}

/// A sentence as long as a few lines: what comes from outside may be endless.
fn cut(sentence: &str) -> String {
    if sentence.chars().nth(LONGEST).is_none() {
        return sentence.to_owned();
    }
    sentence.chars().take(LONGEST).chain("...".chars()).collect()
}

/// Whether none of them is a failure.
pub(crate) fn is_good(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Failure)
}

/// One line each, with what to do below it, and a line with the sums at the end.
pub(crate) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { level, subject, says, what_to_do } in findings {
        let says = printable_line(says);
        text.push_str(&format!("{:<8} {subject:<16} {says}\n", level.word()));
        if !what_to_do.is_empty() {
            text.push_str(&format!("{:>25} {}\n", "->", printable_line(what_to_do)));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let [failures, warnings, ok] = [Level::Failure, Level::Warning, Level::Ok].map(count);
    text.push_str(&format!("\n{failures} failures, {warnings} warnings, {ok} ok\n"));
    text
}

/// `{"ok": BOOL, "findings": [{"level", "subject", "says", "what_to_do"}]}`.
pub(crate) fn json(findings: &[Finding]) -> String {
    let each = |finding: &Finding| {
        let Finding { level, subject, says, what_to_do } = finding;
        json!({ "level": level.word(), "subject": subject, "says": says, "what_to_do": what_to_do })
    };
    let findings_json: Vec<Value> = findings.iter().map(each).collect();
    let object = json!({ "ok": is_good(findings), "findings": findings_json });
    ascii_json(serde_json::to_string_pretty(&object).unwrap_or_default()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each level; what came from outside would clear a terminal.
    fn findings() -> [Finding; 3] {
        [
            Finding::ok("dns", "the name has an address"),
            Finding::warning("jwks", "a key \u{1b}[2J", "wait"),
            Finding::failure("token", "x".repeat(700), "sign with another key"),
        ]
    }

    #[test]
    fn the_text_has_a_line_for_each_what_to_do_and_the_sums() {
        let sentence = format!("{}...", "x".repeat(600));
        let expected = format!(
            "ok       dns              the name has an address\n\
             warning  jwks             a key \\u{{1b}}[2J\n                       -> wait\n\
             failure  token            {sentence}\n                       -> sign with another key\n\n\
             1 failures, 1 warnings, 1 ok\n"
        );
        assert_eq!(text(&findings()), expected);
    }

    #[test]
    fn the_json_is_one_object_that_is_ok_without_failures() {
        let read = |findings: &[Finding]| -> Value {
            let text = json(findings);
            assert!(text.ends_with("}\n") && text.is_ascii(), "{text}");
            serde_json::from_str(&text).unwrap()
        };
        let found = read(&findings());
        let warning = json!({
            "level": "warning", "subject": "jwks", "says": "a key \u{1b}[2J", "what_to_do": "wait"
        });
        assert_eq!((&found["ok"], &found["findings"][1]), (&json!(false), &warning));
        assert_eq!(read(&findings()[..2])["ok"], true);
    }
}
