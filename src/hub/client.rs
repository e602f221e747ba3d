//! Requests to the hub: who asks, what an answer means, and when to ask again.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Request, Response};
use ureq::{Agent, Body, SendBody};

use crate::error::{Error, Result};

/// The hub that everybody uses.
pub const PUBLIC: &str = "https://huggingface.co";
/// Tries of one request.
const TRIES: u32 = 5;
/// Before the second try; twice as long before every later one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A server that asks for more patience than this is told to a person.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Answers that another try may change.
const PASSING: [u16; 6] = [408, 429, 500, 502, 503, 504];
/// Longest answer that is read as text.
const LONGEST_TEXT: u64 = 64 << 20;

/// A hub, and who asks it.
pub struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What is sent with a request.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    Nothing,
    /// Bytes, and their media type.
    Bytes(&'a [u8], &'a str),
    /// A file of so many bytes.
    File(&'a Path, u64),
}

/// Why a try came to nothing, and whether another one is worth it.
pub(super) struct Failure {
    pub error: Error,
    pub again: Again,
}

/// When to try again.
pub(super) enum Again {
    Never,
    Soon,
    After(Duration),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, again: Again::Never }
    }
}

impl Hub {
    /// A hub at `endpoint`, asked with a token where there is one.
    ///
    /// # Errors
    /// An endpoint that is no address.
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Hub> {
        let endpoint = endpoint.trim_end_matches('/').to_string();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::new("HF_ENDPOINT", format!("`{endpoint}` is no address of a hub"))
                .hint(format!("leave it unset for {PUBLIC}")));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("slm-fast/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            // a commit of many files takes the hub a while
            .timeout_recv_response(Some(Duration::from_secs(300)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .timeout_per_write(Some(Duration::from_secs(60)))
            .build()
            .into();
        Ok(Hub { agent, endpoint, token })
    }

    /// Where a person sees a dataset.
    pub(super) fn page(&self, rest: &str) -> String {
        format!("{}/datasets/{rest}", self.endpoint)
    }

    /// An address of the API.
    pub(super) fn api(&self, rest: &str) -> String {
        format!("{}/api/{rest}", self.endpoint)
    }

    /// Whether an address is the hub's own, the only ones that see the token.
    pub(super) fn owns(&self, url: &str) -> bool {
        url.strip_prefix(&self.endpoint).is_some_and(|rest| rest.starts_with('/'))
    }

    /// One try. `fine`: answers beside 2xx that the caller understands.
    pub(super) fn once(
        &self,
        method: &str,
        url: &str,
        headers: &[(String, String)],
        payload: Payload,
        fine: &[u16],
    ) -> Result<Response<Body>, Failure> {
        let place = self.place(url);
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.owns(url)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let broken = |error: ureq::http::Error| Error::new(&place, format!("cannot be asked: {error}"));
        let answer = match payload {
            Payload::Nothing => self.agent.run(request.body(()).map_err(broken)?),
            Payload::Bytes(bytes, kind) => {
                self.agent.run(request.header("content-type", kind).body(bytes).map_err(broken)?)
            }
            Payload::File(path, size) => {
                let file = File::open(path).map_err(|error| Error::io(path, "cannot read", &error))?;
                let request = request.header("content-length", size);
                let body = SendBody::from_owned_reader(file.take(size));
                self.agent.run(request.body(body).map_err(broken)?)
            }
        };
        let mut answer = answer.map_err(|error| self.lost(&place, &error.to_string()))?;
        let status = answer.status().as_u16();
        if (200..300).contains(&status) || fine.contains(&status) {
            return Ok(answer);
        }
        Err(self.refused(&place, status, &mut answer))
    }

    /// A failure of the connection.
    pub(super) fn lost(&self, place: &str, what: &str) -> Failure {
        let error = Error::new(place, self.hidden(what)).hint("check the network, and HF_ENDPOINT if it is set");
        Failure { error, again: Again::Soon }
    }

    /// What a status means to a person.
    fn refused(&self, place: &str, status: u16, answer: &mut Response<Body>) -> Failure {
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
        let pause = header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let named = header("x-error-message");
        let text = answer.body_mut().with_config().limit(1 << 16).read_to_string().unwrap_or_default();
        let told =
            serde_json::from_str::<Value>(&text).ok().and_then(|json| json["error"].as_str().map(str::to_string));
        let told: String = named.or(told).unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect();
        let told = if told.is_empty() { told } else { format!(": {}", self.hidden(&told)) };
        let (what, hint) = match (status, &self.token) {
            (401, None) => ("the hub asks who you are", "set HF_TOKEN to a token of your account"),
            (401, Some(_)) => ("the hub does not accept the token", "set HF_TOKEN to a valid token of your account"),
            (403, _) => ("the token has no right to do this", "make a token with write access to the repository"),
            (404, _) => ("not found", "check the repository's name; a private one needs HF_TOKEN"),
            (429, _) => ("the hub asks to come back later", "try again in some minutes"),
            (500.., _) => ("the hub failed", "try again later"),
            _ => ("the hub refused", ""),
        };
        let again = match pause {
            _ if !PASSING.contains(&status) => Again::Never,
            Some(pause) if pause > LONGEST_PAUSE => Again::Never,
            Some(pause) => Again::After(pause),
            None => Again::Soon,
        };
        Failure { error: Error::new(place, format!("{what} ({status}){told}")).hint(hint), again }
    }

    /// An address as messages show it: its path on the hub, the host alone of anywhere else, since the rest may be signed.
    pub(super) fn place(&self, url: &str) -> String {
        let plain = url.split(['?', '#']).next().unwrap_or_default();
        if self.owns(url) {
            return plain.to_string();
        }
        let host = plain.split("://").nth(1).unwrap_or(plain).split('/').next().unwrap_or_default();
        host.rsplit('@').next().unwrap_or_default().to_string()
    }

    /// A text without the token.
    fn hidden(&self, text: &str) -> String {
        match self.token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => text.replace(token, "***"),
            None => text.to_string(),
        }
    }

    /// Asks until it works, or another try is worth nothing.
    pub(super) fn tried<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure { error, again: Again::Never }) => return Err(error),
                Err(Failure { again: Again::Soon, .. }) => std::thread::sleep(pause),
                Err(Failure { again: Again::After(asked), .. }) => std::thread::sleep(asked),
            }
            pause *= 2;
        }
        attempt().map_err(|failure| failure.error)
    }

    /// Asks for JSON. Returns the status, the answer, and the address of its next page where there is one.
    pub(super) fn json(
        &self,
        method: &str,
        url: &str,
        payload: Payload,
        fine: &[u16],
    ) -> Result<(u16, Value, Option<String>)> {
        self.json_with(method, url, &[], payload, fine)
    }

    /// As [`Hub::json`], with headers.
    pub(super) fn json_with(
        &self,
        method: &str,
        url: &str,
        headers: &[(String, String)],
        payload: Payload,
        fine: &[u16],
    ) -> Result<(u16, Value, Option<String>)> {
        self.tried(|| {
            let mut answer = self.once(method, url, headers, payload, fine)?;
            let status = answer.status().as_u16();
            let link = answer.headers().get("link").and_then(|value| value.to_str().ok()).and_then(next_page);
            let place = self.place(url);
            let text = answer.body_mut().with_config().limit(LONGEST_TEXT).read_to_string();
            let text = text.map_err(|error| self.lost(&place, &format!("the answer was cut: {error}")))?;
            if !(200..300).contains(&status) || text.trim().is_empty() {
                return Ok((status, Value::Null, None));
            }
            let json = serde_json::from_str(&text);
            let json = json.map_err(|error| Error::new(&place, format!("the answer is no JSON: {error}")))?;
            Ok((status, json, link))
        })
    }
}

/// The address behind `rel="next"` of a Link header.
fn next_page(link: &str) -> Option<String> {
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(part.split_once('<')?.1.split_once('>')?.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_show_neither_token_nor_signature() {
        let hub = Hub::new("https://hub.example/", Some("hf_secret".into())).unwrap();
        assert_eq!(hub.place("https://hub.example/api/x?token=1"), "https://hub.example/api/x");
        assert_eq!(hub.place("https://user:word@cdn.example/path?X-Signature=1"), "cdn.example");
        assert_eq!(hub.hidden("wrong: hf_secret!"), "wrong: ***!");
        assert!(hub.owns("https://hub.example/api") && !hub.owns("https://hub.example.evil/api"));
        assert!(Hub::new("ftp://x", None).is_err());
    }

    #[test]
    fn pages_follow_links() {
        let link = "<https://a/b?cursor=1>; rel=\"next\", <https://a/b>; rel=\"first\"";
        assert_eq!(next_page(link).as_deref(), Some("https://a/b?cursor=1"));
        assert_eq!(next_page("<https://a/b>; rel=\"first\""), None);
    }
}
