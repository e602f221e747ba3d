//! The live view: a small web server that shows the runs of a data folder and never writes to it.
//!
//! A page of another site cannot read it: without a token it answers only on the loopback address and to that name; no
//! answer may be framed or read across origins. Of the disk it shows runs directly below the data folder, as JSON that it
//! makes itself; it hands out no file.

pub mod hardware;
pub mod http;
mod replay;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::json;

use crate::error::{Error, Result};
use crate::report::experiment::Experiment;
use crate::report::files::RunFolder;
use crate::report::list::{self, Entry, State};
use crate::report::{html, runs};
use hardware::Hardware;
use http::{Request, Response};
use replay::Replay;

/// Connections at once; a viewer has two or three.
const CONNECTIONS: usize = 32;
/// Letters of a token, at least.
const TOKEN: usize = 16;
const PAGE: &str = include_str!("../report/web/live.html");
const LIVE_SCRIPT: &str = include_str!("../report/web/live.js");

/// What to serve, and to whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds the runs.
    pub data: PathBuf,
    pub address: IpAddr,
    /// 0: any that is free.
    pub port: u16,
    /// Whoever knows it may look; needed for any address but the loopback one.
    pub token: Option<String>,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    site: Arc<Site>,
}

/// What every request looks at.
struct Site {
    data: PathBuf,
    address: SocketAddr,
    token: Option<String>,
    hardware: Hardware,
    replay: Replay,
    /// Entries of complete runs, with the time of their last file: they no longer change.
    complete: Mutex<HashMap<PathBuf, (SystemTime, Entry)>>,
    connections: AtomicUsize,
}

impl Server {
    /// Takes the port.
    ///
    /// # Errors
    /// A data folder that cannot be read, an address that is not this machine's or is taken, an address that others reach
    /// without a token, a token that can be guessed.
    pub fn bind(options: Options) -> Result<Server> {
        let data = options.data.canonicalize().map_err(|err| {
            Error::io(&options.data, "cannot read the data folder", &err)
                .hint("give the folder that holds the runs, `data` by default")
        })?;
        list::folders(&data)?;
        match &options.token {
            None if !options.address.is_loopback() => {
                let place = format!("--address {}", options.address);
                return Err(Error::new(place, "others reach this address, and there is no token").hint(
                    "add `--token` with 16 letters or more, or forward the port: `ssh -L 8040:localhost:8040 HOST`",
                ));
            }
            Some(token)
                if token.len() < TOKEN || !token.chars().all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c)) =>
            {
                return Err(Error::new(
                    "--token",
                    format!("a token has {TOKEN} or more letters, digits, `-`, `_`, `.`, `~`"),
                )
                .hint("`openssl rand -hex 16` makes one"));
            }
            _ => {}
        }
        let wanted = SocketAddr::new(options.address, options.port);
        let failed = |err: std::io::Error| {
            Error::new(wanted.to_string(), format!("cannot listen here: {err}"))
                .hint("another program may have the port; `--port 0` takes any that is free")
        };
        let listener = TcpListener::bind(wanted).map_err(failed)?;
        let site = Site {
            data,
            address: listener.local_addr().map_err(failed)?,
            token: options.token,
            hardware: Hardware::default(),
            replay: Replay::default(),
            complete: Mutex::default(),
            connections: AtomicUsize::new(0),
        };
        Ok(Server { listener, site: Arc::new(site) })
    }

    /// Where a browser finds it.
    pub fn url(&self) -> String {
        let token = self.site.token.as_ref().map(|token| format!("?token={token}")).unwrap_or_default();
        format!("http://{}/{token}", self.site.address)
    }

    /// Answers until the process ends.
    pub fn run(&self) {
        for stream in self.listener.incoming().flatten() {
            let site = Arc::clone(&self.site);
            if site.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
                let mut stream = stream;
                http::write(&mut stream, &Response::refuse(503, "too many connections"), true);
                site.connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            std::thread::spawn(move || {
                // told even where a thread panics
                let _open = Open(&site);
                site.talk(stream);
            });
        }
    }
}

/// One of the connections at once.
struct Open<'a>(&'a Site);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Site {
    fn talk(&self, mut stream: TcpStream) {
        let (response, body) = match http::read(&mut stream) {
            Ok(request) => (self.answer(&request), request.method != "HEAD"),
            Err(refusal) => (refusal, true),
        };
        http::write(&mut stream, &response, body);
        http::close(stream);
    }

    /// The answer to a request: first who asks, then what for.
    fn answer(&self, request: &Request) -> Response {
        if !self.is_host(request.header("host")) {
            return Response::refuse(403, "this name is not the one that is served; use localhost");
        }
        // a page of another site may lead here, and may load nothing from here
        if matches!(request.header("sec-fetch-site"), "cross-site" | "same-site") && request.path != "/" {
            return Response::refuse(403, "another site asks for this");
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Response::refuse(405, "nothing here can be changed");
        }
        if let Some(token) = &self.token {
            let cookie = self.cookie();
            if request.path == "/" && same(request.value("token"), token) {
                // a cookie from here on: an address is kept in histories and told to others
                let set = format!("{cookie}={token}; HttpOnly; SameSite=Strict; Path=/");
                let headers = vec![("Location", "/".to_string()), ("Set-Cookie", set)];
                return Response { status: 303, headers, ..Response::refuse(303, "see /") };
            }
            let bearer = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
            let cookies = request.header("cookie").split("; ").filter_map(|pair| pair.split_once('='));
            let held = cookies.filter(|(name, _)| *name == cookie).map(|(_, value)| value);
            if !held.chain([bearer, request.value("token")]).any(|given| same(given, token)) {
                return Response::refuse(401, "a token is needed: open /?token=TOKEN");
            }
        }
        let script = "text/javascript; charset=utf-8";
        match request.path.as_str() {
            "/" => Response::ok("text/html; charset=utf-8", PAGE),
            "/page.css" => Response::ok("text/css; charset=utf-8", html::STYLE),
            "/chart.js" => Response::ok(script, html::CHART_SCRIPT),
            "/report.js" => Response::ok(script, html::REPORT_SCRIPT),
            "/live.js" => Response::ok(script, LIVE_SCRIPT),
            "/api/runs" => json_or_error(self.runs()),
            "/api/run" => json_or_error(self.run(request)),
            "/replay.gif" => match self.folder(request).and_then(|folder| self.replay.gif(&folder, trial(request)?)) {
                Ok(gif) => Response::ok("image/gif", gif),
                Err(error) => Response::refuse(404, &error.to_string()),
            },
            _ => Response::refuse(404, "there is nothing here"),
        }
    }

    fn cookie(&self) -> String {
        // a browser keeps cookies by name, whatever the port
        format!("slm_fast_{}", self.address.port())
    }

    /// Whether a `Host` header is a name of this server: without a token only that of the machine itself, so that no other
    /// name can be pointed here by its owner.
    fn is_host(&self, host: &str) -> bool {
        let name = host.strip_suffix(&format!(":{}", self.address.port())).unwrap_or(host);
        // a forwarded port is another one
        let name =
            name.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(name, |(n, _)| n);
        let own = self.address.ip().to_string();
        self.token.is_some() || name == "localhost" || name == "127.0.0.1" || name == "[::1]" || name == own
    }

    /// All runs, and how busy the machine is.
    fn runs(&self) -> Result<serde_json::Value> {
        let mut entries: Vec<Entry> = list::folders(&self.data)?.iter().filter_map(|f| self.entry(f).ok()).collect();
        entries.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.folder.cmp(&b.folder)));
        Ok(json!({ "runs": entries, "hardware": self.hardware.now() }))
    }

    fn entry(&self, folder: &RunFolder) -> Result<Entry> {
        let last = [folder.experiment_df(), folder.trial_metrics_scalar(0)].into_iter().find(|path| path.exists());
        let time = last.and_then(|path| path.metadata().ok()?.modified().ok());
        let mut complete = self.complete.lock().unwrap_or_else(PoisonError::into_inner);
        match (time, complete.get(folder.root())) {
            (Some(time), Some((known, entry))) if time == *known => return Ok(entry.clone()),
            _ => {}
        }
        let entry = list::entry(folder)?;
        if let (Some(time), State::Complete) = (time, entry.state) {
            complete.insert(folder.root().to_path_buf(), (time, entry.clone()));
        }
        Ok(entry)
    }

    /// A run: the experiment of a search, or a trial.
    fn run(&self, request: &Request) -> Result<serde_json::Value> {
        let folder = self.folder(request)?;
        let entry = self.entry(&folder)?;
        let mut data = match (entry.kind, trial(request)?) {
            (list::Kind::Search, None) => {
                let has_table = folder.experiment_df().exists() || folder.experiment_info("experiment_df.csv").exists();
                let table = if has_table { Experiment::open(&folder)? } else { Experiment::default() };
                let curves = runs::curves(&folder, table.rows.iter().map(|row| row.trial))?;
                html::experiment_data(&folder, &table, &curves)
            }
            (_, trial) => html::trial_data(&folder, trial.unwrap_or(0))?,
        };
        data["state"] = json!(entry.state);
        Ok(data)
    }

    /// The folder of a request's run: a plain name directly below the data folder, with nothing in it that leads out.
    fn folder(&self, request: &Request) -> Result<RunFolder> {
        let name = request.value("run");
        let none = || Error::new(name, "there is no such run");
        let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0']);
        let root = self.data.join(name);
        if !is_plain || !root.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(none());
        }
        for inner in ["", "info", "model"] {
            let folder = root.join(inner);
            if folder.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) || has_links(&folder) {
                return Err(Error::new(name, "a link in this run leads elsewhere"));
            }
        }
        RunFolder::open(&root)
    }
}

/// Whether a folder holds a symbolic link.
fn has_links(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
}

/// The trial that a request asks for, if any.
fn trial(request: &Request) -> Result<Option<u32>> {
    match request.value("trial") {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Error::new(text, "a trial is a number")),
    }
}

fn json_or_error(result: Result<serde_json::Value>) -> Response {
    match result {
        Ok(value) => Response::ok("application/json", value.to_string()),
        Err(error) => Response::refuse(404, &error.to_string()),
    }
}

/// Whether two texts are equal, in a time that does not tell how much of them is.
fn same(given: &str, token: &str) -> bool {
    let (given, token) = (given.as_bytes(), token.as_bytes());
    let differs = (token.iter().enumerate())
        .fold(given.len() ^ token.len(), |differs, (i, &b)| differs | usize::from(given.get(i).unwrap_or(&0) ^ b));
    std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests;
