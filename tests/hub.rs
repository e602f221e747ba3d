//! Runs to the hub and back, against a server of our own that speaks the needed part of its API, faults included.
#![cfg(feature = "hub")]

mod common;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{expect, files, only_run, slm_fast, small_spec, write_spec};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

const TOKEN: &str = "hf_abcdefghijklmnopqrstuvwxyz0123456789";

/// What goes wrong, once, with the next request whose line holds a text.
#[derive(Clone)]
enum Fault {
    /// This status, with this body and these headers.
    Status(u16, &'static str, &'static [(&'static str, &'static str)]),
    /// The connection ends after so many bytes of the answer's body.
    Cut(usize),
    /// The body's first byte is another.
    Wrong,
}

#[derive(Default)]
struct State {
    /// Files of `user/name`, by path; none before the dataset is made.
    files: Option<BTreeMap<String, Vec<u8>>>,
    private: bool,
    commits: usize,
    /// Where large files are kept, by SHA-256.
    large: HashMap<String, Vec<u8>>,
    /// Told instead of the tree, where it is set.
    tree: Option<Value>,
    faults: Vec<(&'static str, VecDeque<Fault>)>,
    /// `GET /path`, in order; with the range that was asked for.
    log: Vec<String>,
    /// Requests to a signed address that came with the token.
    leaks: Vec<String>,
}

/// A hub on a port of this machine.
struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

struct Asked {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn answer(status: u16, body: Value) -> Answer {
    Answer { status, headers: Vec::new(), body: body.to_string().into_bytes() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files that this hub keeps as large ones.
fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".png")
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let server = Server { address: address.clone(), state: state.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, address) = (state.clone(), address.clone());
                std::thread::spawn(move || serve(stream, &state, &address));
            }
        });
        server
    }

    /// A server whose dataset has some files.
    fn with(files: &[(&str, &[u8])]) -> Server {
        let server = Server::start();
        let files = files.iter().map(|(path, bytes)| (path.to_string(), bytes.to_vec())).collect();
        server.state().files = Some(files);
        server
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn fault(&self, request: &'static str, faults: &[Fault]) {
        self.state().faults.push((request, faults.iter().cloned().collect()));
    }

    fn asked(&self, what: &str) -> usize {
        self.state().log.iter().filter(|line| line.contains(what)).count()
    }

    /// The program, with this hub and nothing of the tester's own.
    fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = slm_fast();
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.current_dir(folder).args(args);
        command.env("HF_ENDPOINT", &self.address).env("HF_HOME", folder.join("hf")).env("HF_TOKEN", TOKEN);
        command
    }

    /// Runs the program and asserts its exit code, and that it did not print the token.
    #[track_caller]
    fn expect(&self, folder: &Path, args: &[&str], code: i32) -> String {
        done(&mut self.command(folder, args), code)
    }
}

#[track_caller]
fn done(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("it starts");
    let text = common::text(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains(TOKEN) && !text.contains("signed="), "a secret is shown:\n{text}");
    text
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, state: &Mutex<State>, address: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(asked) = read(&mut reader) {
        let mut state = state.lock().unwrap();
        let range = asked.headers.get("range").map_or(String::new(), |range| format!(" {range}"));
        let line = format!("{} {}{range}", asked.method, asked.path);
        state.log.push(line.clone());
        let known = state.faults.iter_mut().find(|(part, faults)| line.contains(part) && !faults.is_empty());
        let fault = known.and_then(|(_, faults)| faults.pop_front());
        let mut answer = match fault {
            Some(Fault::Status(status, body, headers)) => Answer {
                status,
                headers: headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
                body: body.as_bytes().to_vec(),
            },
            _ => state.answer(&asked, address),
        };
        drop(state);
        if let (Some(Fault::Wrong), Some(byte)) = (&fault, answer.body.first_mut()) {
            *byte ^= 1;
        }
        let mut head = format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let sent = if let Some(Fault::Cut(bytes)) = fault { bytes } else { answer.body.len() };
        let wrote =
            stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&answer.body[..sent]));
        if wrote.is_err() || sent < answer.body.len() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_string()),
            None => break,
        };
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path: unescaped(&path), headers, body })
}

/// `%23` as `#`.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

impl State {
    fn answer(&mut self, asked: &Asked, address: &str) -> Answer {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let has_token = asked.headers.contains_key("authorization");
        let json = || serde_json::from_slice::<Value>(&asked.body).unwrap();
        if let Some(name) = path.strip_prefix("/store/") {
            if has_token {
                self.leaks.push(asked.path.clone());
            }
            assert!(query.contains("signed=yes"), "an address that is not the one that was given");
            if asked.method == "PUT" {
                assert_eq!(asked.headers.get("x-store").map(String::as_str), Some("please"));
                self.large.insert(name.to_string(), asked.body.clone());
                return answer(200, json!({}));
            }
            return part(asked, &self.large[name]);
        }
        if asked.headers.get("authorization").is_some_and(|value| value != &format!("Bearer {TOKEN}")) {
            return answer(401, json!({ "error": "Invalid credentials in Authorization header" }));
        }
        if asked.method == "POST" && !has_token {
            return answer(401, json!({ "error": "Invalid username or password." }));
        }
        if path == "/api/repos/create" {
            let asked = json();
            assert_eq!(
                (&asked["type"], &asked["name"], &asked["organization"]),
                (&json!("dataset"), &json!("name"), &json!("user"))
            );
            self.private = asked["private"] == true;
            self.files = Some(BTreeMap::new());
            return answer(200, json!({ "url": "x" }));
        }
        let Some(files) = &mut self.files else { return answer(404, json!({ "error": "Repository not found" })) };
        match (asked.method.as_str(), path) {
            ("GET", "/api/datasets/user/name/revision/main") => answer(200, json!({ "sha": "c0ffee" })),
            ("GET", path) if path.starts_with("/api/datasets/user/name/tree/c0ffee/") => {
                let root = path.strip_prefix("/api/datasets/user/name/tree/c0ffee/").unwrap();
                let deep = query.contains("recursive=true");
                let page: usize = query.split("cursor=").nth(1).map_or(0, |page| page.parse().unwrap());
                let entries = match &self.tree {
                    Some(tree) if deep => tree.as_array().unwrap().clone(),
                    _ => entries(files, root, deep),
                };
                if entries.is_empty() {
                    return answer(404, json!({ "error": "Entry not found" }));
                }
                // pages of seven entries
                let mut found = answer(200, json!(entries.iter().skip(7 * page).take(7).collect::<Vec<_>>()));
                if entries.len() > 7 * (page + 1) {
                    let next = format!("<{address}{path}?recursive={deep}&cursor={}>; rel=\"next\"", page + 1);
                    found.headers.push(("link".to_string(), next));
                }
                found
            }
            ("GET", path) if path.starts_with("/datasets/user/name/resolve/c0ffee/") => {
                let name = path.strip_prefix("/datasets/user/name/resolve/c0ffee/").unwrap();
                let Some(bytes) = files.get(name) else { return answer(404, json!({ "error": "Entry not found" })) };
                if !is_large(name) {
                    return part(asked, bytes);
                }
                let oid = hex(&Sha256::digest(bytes));
                self.large.insert(oid.clone(), bytes.clone());
                let to = format!("{}/store/{oid}?signed=yes", address.replace("127.0.0.1", "localhost"));
                Answer { status: 302, headers: vec![("location".to_string(), to)], body: Vec::new() }
            }
            ("POST", "/api/datasets/user/name/preupload/main") => {
                let mode = |file: &Value| {
                    let path = file["path"].as_str().unwrap();
                    assert!(STANDARD.decode(file["sample"].as_str().unwrap()).unwrap().len() <= 512);
                    json!({ "path": path, "uploadMode": if is_large(path) { "lfs" } else { "regular" }, "shouldIgnore": false })
                };
                let modes: Vec<Value> = json()["files"].as_array().unwrap().iter().map(mode).collect();
                answer(200, json!({ "files": modes }))
            }
            ("POST", "/datasets/user/name.git/info/lfs/objects/batch") => {
                let batch = json();
                assert_eq!((&batch["operation"], &batch["transfers"]), (&json!("upload"), &json!(["basic"])));
                let object = |object: &Value| {
                    let oid = object["oid"].as_str().unwrap();
                    if self.large.contains_key(oid) {
                        return json!({ "oid": oid, "size": object["size"] });
                    }
                    let store = address.replace("127.0.0.1", "localhost");
                    json!({ "oid": oid, "size": object["size"], "actions": {
                        "upload": { "href": format!("{store}/store/{oid}?signed=yes"), "header": { "x-store": "please" } },
                        "verify": { "href": format!("{address}/api/datasets/user/name/verify") },
                    } })
                };
                let objects: Vec<Value> = batch["objects"].as_array().unwrap().iter().map(object).collect();
                answer(200, json!({ "transfer": "basic", "objects": objects }))
            }
            ("POST", "/api/datasets/user/name/verify") => {
                let object = json();
                let bytes = &self.large[object["oid"].as_str().unwrap()];
                assert_eq!(hex(&Sha256::digest(bytes)), object["oid"].as_str().unwrap());
                answer(200, json!({}))
            }
            ("POST", "/api/datasets/user/name/commit/main") => {
                let text = String::from_utf8(asked.body.clone()).unwrap();
                let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
                let header = lines.next().unwrap();
                assert!(header["key"] == "header" && header["value"]["summary"].is_string());
                for line in lines {
                    let value = &line["value"];
                    let path = value["path"].as_str().unwrap().to_string();
                    let bytes = match line["key"].as_str().unwrap() {
                        "file" => STANDARD.decode(value["content"].as_str().unwrap()).unwrap(),
                        "lfsFile" => self.large[value["oid"].as_str().unwrap()].clone(),
                        other => panic!("a line of the kind {other}"),
                    };
                    files.insert(path, bytes);
                }
                self.commits += 1;
                answer(200, json!({ "success": true, "commitOid": "c0ffee" }))
            }
            other => panic!("not a request of the hub's API: {other:?}"),
        }
    }
}

/// A body, or the part of it that a Range header asks for.
fn part(asked: &Asked, bytes: &[u8]) -> Answer {
    let from = asked.headers.get("range").map(|range| range.strip_prefix("bytes=").unwrap().trim_end_matches('-'));
    match from.map(|from| from.parse::<usize>().unwrap()) {
        None => Answer { status: 200, headers: Vec::new(), body: bytes.to_vec() },
        Some(from) => Answer { status: 206, headers: Vec::new(), body: bytes[from..].to_vec() },
    }
}

fn entries(files: &BTreeMap<String, Vec<u8>>, root: &str, deep: bool) -> Vec<Value> {
    let mut found = Vec::new();
    let mut folders = std::collections::BTreeSet::new();
    for (path, bytes) in files {
        let Some(inner) = path.strip_prefix(&format!("{root}/")) else { continue };
        for (at, _) in inner.match_indices('/') {
            if deep || !inner[..at].contains('/') {
                folders.insert(format!("{root}/{}", &inner[..at]));
            }
        }
        if !deep && inner.contains('/') {
            continue;
        }
        let mut blob = Sha1::new();
        blob.update(format!("blob {}\0", bytes.len()));
        blob.update(bytes);
        let mut entry = json!({ "type": "file", "path": path, "size": bytes.len(), "oid": hex(&blob.finalize()) });
        if is_large(path) {
            // git itself keeps a pointer
            entry["oid"] = json!("0".repeat(40));
            entry["lfs"] = json!({ "oid": hex(&Sha256::digest(bytes)), "size": bytes.len(), "pointerSize": 130 });
        }
        found.push(entry);
    }
    found.extend(folders.into_iter().map(|path| json!({ "type": "directory", "path": path, "size": 0, "oid": "x" })));
    found
}

/// A small run below `folder/data`.
fn trained(folder: &Path) -> PathBuf {
    let spec = write_spec(folder, &small_spec(1000, 1, Some(3)));
    expect(folder, &["train", spec, "--quiet"], 0);
    only_run(&folder.join("data"))
}

fn name(run: &Path) -> String {
    run.file_name().unwrap().to_str().unwrap().to_string()
}

/// Every file below a folder with its bytes.
fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    files(root).into_iter().map(|name| (name.clone(), std::fs::read(root.join(name)).unwrap())).collect()
}

#[test]
fn a_run_goes_there_and_back_and_plays() {
    let folder = tempfile::tempdir().unwrap();
    let (server, run) = (Server::start(), trained(folder.path()));
    std::fs::write(run.join("info/.writing-x"), "half").unwrap();
    std::fs::write(run.join("info/a b#1%.txt"), "a name that an address has to escape").unwrap();
    std::fs::write(run.join("info/empty.png"), "").unwrap();
    let push = ["push", run.to_str().unwrap(), "--repo", "user/name", "--private"];
    let text = server.expect(folder.path(), &push, 0);
    assert!(text.contains("made the dataset user/name") && text.contains("pushed "), "{text}");
    let page = format!("see {}/datasets/user/name/tree/main/data/{}", server.address, name(&run));
    assert!(text.contains(&page) && server.state().private, "{text}");

    // everything but the checkpoint to continue with and what is being written
    let mut sent = contents(&run);
    sent.retain(|path, _| !path.ends_with("_resume.safetensors") && !path.contains(".writing-"));
    let there = server.state().files.clone().unwrap();
    let expected: BTreeMap<String, Vec<u8>> =
        sent.iter().map(|(path, bytes)| (format!("data/{}/{path}", name(&run)), bytes.clone())).collect();
    assert!(there == expected, "{:?}\n{:?}", there.keys(), expected.keys());

    // nothing goes twice
    let commits = server.state().commits;
    let text = server.expect(folder.path(), &push, 0);
    assert!(text.contains(&format!("pushed 0 files, 0 B, {} were there already", sent.len())), "{text}");
    assert_eq!(server.state().commits, commits);

    let text = server.expect(folder.path(), &["pull", "--list", "--repo", "user/name"], 0);
    assert_eq!(text.trim(), name(&run));
    let text = server.expect(folder.path(), &["pull", "user/name/small", "--data", "pulled"], 0);
    assert!(text.contains(&format!("{} files", sent.len())), "{text}");
    let pulled = only_run(&folder.path().join("pulled"));
    assert_eq!(name(&pulled), name(&run));
    assert!(contents(&pulled) == sent);
    let text = expect(folder.path(), &["enjoy", pulled.to_str().unwrap(), "--episodes", "2"], 0);
    assert!(text.contains("small_t0_s0"), "{text}");
    expect(folder.path(), &["reproduce", pulled.to_str().unwrap(), "--data", "again", "--quiet"], 0);

    // what is here is never written to
    std::fs::write(pulled.join("mine.txt"), "mine").unwrap();
    let before = contents(&pulled);
    let text = server.expect(folder.path(), &["pull", "small", "--repo", "user/name", "--data", "pulled"], 0);
    assert!(text.contains("is here already, left as it is"), "{text}");
    assert!(contents(&pulled) == before);
    assert!(server.state().leaks.is_empty(), "{:?}", server.state().leaks);
}

#[test]
fn a_dry_run_lists_and_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (server, run) = (Server::start(), trained(folder.path()));
    let mut push = vec!["push", run.to_str().unwrap(), "--repo", "user/name", "--dry-run"];
    let text = server.expect(folder.path(), &push, 0);
    let resume = "model/small_t0_resume.safetensors";
    let line = |start: &str| text.lines().any(|line| line.starts_with(start));
    assert!(line(&format!("data/{}/small_spec.json  ", name(&run))), "{text}");
    assert!(line(&format!("left out: {resume}  ")) && text.contains("1 left out; nothing was sent"), "{text}");
    push.push("--all");
    let text = server.expect(folder.path(), &push, 0);
    assert!(text.contains(&format!("data/{}/{resume}  ", name(&run))) && text.contains("0 left out"), "{text}");
    assert!(server.state().log.is_empty());
}

#[test]
fn whoever_may_not_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let (server, run) = (Server::with(&[]), trained(folder.path()));
    let push = ["push", run.to_str().unwrap(), "--repo", "user/name"];
    let text = done(server.command(folder.path(), &push).env("HF_TOKEN", "hf_wrong"), 2);
    assert!(
        text.contains("does not accept the token (401): Invalid credentials") && !text.contains("hf_wrong"),
        "{text}"
    );
    let text = done(server.command(folder.path(), &push).env_remove("HF_TOKEN"), 2);
    assert!(text.contains("asks who you are (401)") && text.contains("hint: set HF_TOKEN"), "{text}");
    // the token that the hub's own tools keep
    std::fs::create_dir(folder.path().join("hf")).unwrap();
    std::fs::write(folder.path().join("hf/token"), format!("{TOKEN}\n")).unwrap();
    done(server.command(folder.path(), &push).env_remove("HF_TOKEN"), 0);
    std::fs::write(run.join("info/new.txt"), "new").unwrap();
    let told = r#"{"error":"You don't have the rights: hf_abcdefghijklmnopqrstuvwxyz0123456789"}"#;
    server.fault("POST /api/datasets/user/name/commit", &[Fault::Status(403, told, &[])]);
    let text = server.expect(folder.path(), &push, 2);
    assert!(text.contains("no right to do this (403): You don't have the rights: ***"), "{text}");
    assert!(server.asked("POST /api/datasets/user/name/commit") == 2, "a 403 is final");
    server.state().files = None;
    let text = server.expect(folder.path(), &["pull", "small", "--repo", "user/name"], 2);
    assert!(text.contains("there is no such dataset, or it is private"), "{text}");
    let text = server.expect(folder.path(), &["pull", "small", "--repo", "user"], 2);
    assert!(text.contains("--repo: `user` is no repository"), "{text}");
    let text = server.expect(folder.path(), &["pull", "small"], 2);
    assert!(text.contains("HF_REPO"), "{text}");
    let text = done(server.command(folder.path(), &push).env("HF_ENDPOINT", "http://127.0.0.1:1"), 2);
    assert!(text.contains("check the network, and HF_ENDPOINT"), "{text}");
}

#[test]
fn a_hub_that_is_busy_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, run) = (Server::with(&[]), trained(folder.path()));
    let busy = Fault::Status(429, "", &[("retry-after", "1")]);
    let down = Fault::Status(503, "<html>down</html>", &[]);
    server.fault("POST /api/datasets/user/name/preupload", std::slice::from_ref(&busy));
    server.fault("PUT /store/", &[down.clone(), busy]);
    server.fault("POST /api/datasets/user/name/commit", &[down.clone(), Fault::Cut(3)]);
    let push = ["push", run.to_str().unwrap(), "--repo", "user/name"];
    let begun = Instant::now();
    server.expect(folder.path(), &push, 0);
    assert!(begun.elapsed() >= Duration::from_secs(2), "twice a second's patience was asked for");
    assert_eq!(server.asked("POST /api/datasets/user/name/preupload"), 2);
    assert!(server.state().files.as_ref().unwrap().keys().any(|path| path.ends_with("small_spec.json")));
    // for good
    std::fs::write(run.join("info/new.txt"), "new").unwrap();
    let before = server.asked("/preupload");
    server.fault("/preupload", &vec![down; 9]);
    let text = server.expect(folder.path(), &push, 2);
    assert!(text.contains("the hub failed (503)") && !text.contains("html"), "{text}");
    assert_eq!(server.asked("/preupload") - before, 5);
    server.state().faults.clear();
    server.fault("/preupload", &[Fault::Status(429, "", &[("retry-after", "3600")])]);
    let text = server.expect(folder.path(), &push, 2);
    assert!(text.contains("asks to come back later (429)"), "{text}");
}

#[test]
fn a_transfer_that_is_cut_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
    let server = Server::with(&[("data/x_1/x_spec.json", b"{}"), ("data/x_1/model/x.safetensors", &large)]);
    server.fault("GET /store/", &[Fault::Cut(50_000), Fault::Cut(30_000)]);
    server.fault("GET /api/datasets/user/name/tree", &[Fault::Cut(20)]);
    server.expect(folder.path(), &["pull", "x_1", "--repo", "user/name"], 0);
    assert!(std::fs::read(folder.path().join("data/x_1/model/x.safetensors")).unwrap() == large);
    let ranges: Vec<String> = server.state().log.iter().filter(|line| line.contains("/store/")).cloned().collect();
    assert!(
        ranges.len() == 3 && ranges[1].ends_with("bytes=50000-") && ranges[2].ends_with("bytes=80000-"),
        "{ranges:?}"
    );

    // for good: nothing is left, neither half a run nor a temporary folder
    server.fault("GET /store/", &vec![Fault::Cut(1000); 9]);
    let text = server.expect(folder.path(), &["pull", "x_1", "--repo", "user/name", "--data", "other"], 2);
    assert!(text.contains("the transfer was cut"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path().join("other")).unwrap().count(), 0);
}

#[test]
fn bytes_that_are_not_those_promised_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(&[("data/x_1/x_spec.json", b"{}"), ("data/x_1/model/x.safetensors", b"12345")]);
    for (n, request) in
        ["GET /store/", "GET /datasets/user/name/resolve/c0ffee/data/x_1/x_spec.json"].into_iter().enumerate()
    {
        let data = format!("data{n}");
        let pull = ["pull", "x_1", "--repo", "user/name", "--data", &data];
        server.fault(request, &[Fault::Wrong, Fault::Wrong]);
        let text = server.expect(folder.path(), &pull, 2);
        assert!(text.contains("the bytes are not those that the hub promised"), "{text}");
        assert_eq!(std::fs::read_dir(folder.path().join(&data)).unwrap().count(), 0);
        // once is forgiven
        server.fault(request, &[Fault::Wrong]);
        server.expect(folder.path(), &pull, 0);
    }
}

#[test]
fn paths_that_lead_outside_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(&[("data/x_1/x_spec.json", b"{}")]);
    for path in [
        "data/x_1/../../evil",
        "/etc/evil",
        "data/other/evil",
        "data/x_1/a\\..\\evil",
        "data/x_1//evil",
        "data/x_1/C:evil",
    ] {
        server.state().tree = Some(json!([{ "type": "file", "path": path, "size": 2, "oid": "0".repeat(40) }]));
        let text = server.expect(folder.path(), &["pull", "x_1", "--repo", "user/name"], 2);
        assert!(text.contains("leads out of the run's folder"), "{path}: {text}");
    }
    assert!(!folder.path().join("data").exists() && !folder.path().join("evil").exists());
}

#[test]
fn the_environment_asks_for_an_upload_at_the_end_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(&[]);
    let spec = write_spec(folder.path(), &small_spec(256, 1, Some(3)));
    let train = |data: &str| {
        let mut command = server.command(folder.path(), &["train", spec, "--quiet", "--data", data]);
        command.env("UPLOAD_HF", "true").env("HF_REPO", "user/name");
        command
    };
    let text = done(&mut train("a"), 0);
    assert!(text.contains("pushed ") && text.starts_with("trial_metrics: "), "{text}");
    let run = only_run(&folder.path().join("a"));
    let metrics = format!("data/{}/small_t0_trial_metrics_scalar.json", name(&run));
    assert!(server.state().files.as_ref().unwrap().contains_key(&metrics));
    // a failure is told, and the run is whole
    server.fault("/revision/main", &[Fault::Status(401, "", &[])]);
    let text = done(&mut train("b"), 0);
    assert!(text.contains("is not uploaded: ") && text.contains("`slm-fast push b/small_"), "{text}");
    assert!(only_run(&folder.path().join("b")).join("small_t0_trial_metrics_scalar.json").exists());
    let text = done(train("c").env_remove("HF_REPO"), 0);
    assert!(text.contains("HF_REPO"), "{text}");
    let before = server.state().log.len();
    done(train("d").env("UPLOAD_HF", "false"), 0);
    assert_eq!(server.state().log.len(), before);
}
