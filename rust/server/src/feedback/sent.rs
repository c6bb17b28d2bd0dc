//! What a client sends: one JSON object, or one in each line (NDJSON), each with `receipt`, `value` and `kind`.
//!
//! Next: `refusal`.

use serde::Deserialize;
use serde_json::Value;

/// The most lines of a request.
pub const MAX_LINES: usize = 1_000;
/// The most bytes of a request.
pub const MAX_BYTES: usize = 512 << 10;

/// One feedback as it is sent.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SentFeedback {
    /// The text of the answer's receipt.
    pub receipt: String,
    /// What is given.
    pub value: Value,
    /// The name of the feedback; it may be left out if the endpoint has one alone.
    #[serde(default)]
    pub kind: Option<String>,
}

/// A request with feedback.
#[derive(Debug, PartialEq)]
pub enum SentRequest {
    /// One object, which is answered by a status.
    One(SentFeedback),
    /// Lines, each of which has a result.
    Lines(Vec<SentLine>),
}

/// A line of a request.
#[derive(Debug, PartialEq)]
pub struct SentLine {
    /// Its number, from 1.
    pub number: usize,
    /// The feedback, or why it cannot be read.
    pub feedback: Result<SentFeedback, String>,
}

impl SentRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Words about a body that has nothing in it, is one object that cannot be read, or has too many lines.
    pub fn read(body: &[u8]) -> Result<SentRequest, String> {
        let lines: Vec<(usize, &[u8])> = body
            .split(|&byte| byte == b'\n')
            .enumerate()
            .map(|(place, line)| (place + 1, line.trim_ascii()))
            .filter(|(_, line)| !line.is_empty())
            .take(MAX_LINES + 1)
            .collect();
        match &lines[..] {
            [] => Err("the body is empty; send {\"receipt\": ..., \"value\": ..., \"kind\": ...}".to_owned()),
            [(_, line)] => read_object(line).map(SentRequest::One),
            // An object over several lines. Lines that are objects begin anew, so that no such object has two.
            [(_, b"{"), ..] => read_object(body).map(SentRequest::One),
            lines if lines.len() > MAX_LINES => {
                Err(format!("the body has more than {MAX_LINES} lines; send the others in another request"))
            }
            lines => {
                let line =
                    |&(number, line): &(usize, &[u8])| SentLine { number, feedback: read_object(line) };
                Ok(SentRequest::Lines(lines.iter().map(line).collect()))
            }
        }
    }
}

fn read_object(json: &[u8]) -> Result<SentFeedback, String> {
    // A list would be read as the fields in their order.
    if json.trim_ascii_start().first() == Some(&b'[') {
        return Err("not the JSON of a feedback: expected an object, found a list".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| format!("not the JSON of a feedback: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(value: Value, kind: Option<&str>) -> SentFeedback {
        SentFeedback { receipt: "r".to_owned(), value, kind: kind.map(str::to_owned) }
    }

    #[test]
    fn one_object_is_read_on_one_line_or_several() {
        let wanted = SentRequest::One(feedback(true.into(), Some("sale")));
        for body in [
            r#"{"receipt": "r", "value": true, "kind": "sale"}"#,
            "\n {\"receipt\": \"r\", \"value\": true, \"kind\": \"sale\"} \r\n\n",
            "{\n  \"receipt\": \"r\",\n  \"value\": true,\n  \"kind\": \"sale\"\n}",
        ] {
            assert_eq!(SentRequest::read(body.as_bytes()).as_ref(), Ok(&wanted), "{body}");
        }
        let without = SentRequest::read(br#"{"receipt": "r", "value": 2}"#);
        assert_eq!(without, Ok(SentRequest::One(feedback(2.into(), None))));
    }

    #[test]
    fn a_list_is_no_feedback() {
        for body in ["[]", r#" ["r", true, "sale"]"#] {
            let words = SentRequest::read(body.as_bytes()).unwrap_err();
            assert!(words.contains("expected an object, found a list"), "{words}");
        }
    }

    #[test]
    fn each_line_is_read_for_itself() {
        let body = b"{\"receipt\":\"r\",\"value\":1}\n\nnonsense\n{\"receipt\":\"r\",\"value\":1,\"more\":2}\n{\"value\":1}\n";
        let Ok(SentRequest::Lines(lines)) = SentRequest::read(body) else { panic!("lines are lines") };
        let numbers: Vec<_> = lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [1, 3, 4, 5]);
        assert_eq!(lines[0].feedback, Ok(feedback(1.into(), None)));
        for (line, words) in [(1, "expected"), (2, "unknown field `more`"), (3, "missing field `receipt`")] {
            assert!(lines[line].feedback.as_ref().unwrap_err().contains(words), "{:?}", lines[line]);
        }
    }

    #[test]
    fn a_body_without_feedback_or_with_too_much_is_refused() {
        let refused = |body: &[u8]| SentRequest::read(body).unwrap_err();
        assert!(refused(b" \n ").contains("empty"));
        assert!(refused(b"[1]").contains("not the JSON"));
        assert!(refused(b"\xff").contains("not the JSON"));
        let line = "{\"receipt\":\"r\",\"value\":1}\n";
        assert!(matches!(SentRequest::read(line.repeat(MAX_LINES).as_bytes()), Ok(SentRequest::Lines(_))));
        assert!(refused(line.repeat(MAX_LINES + 1).as_bytes()).contains("more than 1000 lines"));
    }

    #[test]
    fn any_body_is_read_or_refused() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            if let Ok(SentRequest::Lines(lines)) = SentRequest::read(bytes) {
                assert!(lines.len() > 1 && lines.len() <= MAX_LINES);
            }
        });
    }
}
