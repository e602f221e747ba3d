//! Who may look at what: hosts, other sites, tokens, folders.

use super::*;
use crate::report::files::write_whole;

fn site(data: &Path, address: &str, token: Option<&str>) -> Site {
    let address = address.parse().expect("an address");
    let options = Options { data: data.to_path_buf(), address, port: 0, token: token.map(str::to_string) };
    let server = Server::bind(options).expect("a free port");
    Arc::into_inner(server.site).expect("nobody else holds it")
}

fn get(target: &str, headers: &[(&str, &str)]) -> Request {
    let mut head = format!("GET {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str("Host: localhost:8040\r\n");
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    http::parse(format!("{head}\r\n").as_bytes()).expect("a request")
}

fn run(data: &Path) -> RunFolder {
    let folder = RunFolder::create(data, "ppo_x").expect("made");
    let spec = r#"{"env": {"name": "CartPole-v1", "max_frame": 200}, "meta": {"random_seed": 3}}"#;
    write_whole(&folder.spec(), spec.as_bytes()).expect("written");
    let frame = "frame,total_reward,total_reward_ma,loss\n100,1,1,0.5\n200,3,2,0.25\n";
    write_whole(&folder.session_info(0, 0, "df_train.csv"), frame.as_bytes()).expect("written");
    folder
}

fn json(response: &Response) -> serde_json::Value {
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    serde_json::from_slice(&response.body).expect("JSON")
}

#[test]
fn a_run_is_shown_while_it_grows() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let folder = run(data.path());
    let name = folder.root().file_name().expect("a name").to_string_lossy().into_owned();
    let site = site(data.path(), "127.0.0.1", None);
    let list = json(&site.answer(&get("/api/runs", &[])));
    assert_eq!((&list["runs"][0]["folder"], &list["runs"][0]["state"]), (&json!(name), &json!("interrupted")));
    let target = format!("/api/run?run={name}");
    let shown = json(&site.answer(&get(&target, &[])));
    assert_eq!((&shown["kind"], &shown["seed"], &shown["state"]), (&json!("trial"), &json!(3), &json!("interrupted")));
    assert_eq!(shown["sessions"][0]["total_reward"], json!([1, 3]));
    write_whole(&folder.trial_metrics_scalar(0), br#"{"strength": 1.5}"#).expect("written");
    for _ in 0..2 {
        assert_eq!(json(&site.answer(&get(&target, &[])))["state"], json!("complete"));
    }
    assert_eq!(json(&site.answer(&get(&target, &[])))["metrics"]["strength"], json!(1.5));
    let replay = site.answer(&get(&format!("/replay.gif?run={name}"), &[]));
    assert_eq!(replay.status, 404, "there is no model");
}

#[test]
fn pages_and_scripts_are_there_and_nothing_else() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let site = site(data.path(), "127.0.0.1", None);
    for path in ["/", "/page.css", "/chart.js", "/report.js", "/live.js"] {
        assert_eq!(site.answer(&get(path, &[])).status, 200, "{path}");
    }
    for path in ["/x", "//", "/live.js/", "/../Cargo.toml", "/api/", "/api/run", "/api/run?run="] {
        assert_eq!(site.answer(&get(path, &[])).status, 404, "{path}");
    }
    let post = Request { method: "POST".into(), ..get("/", &[]) };
    assert_eq!(site.answer(&post).status, 405);
}

#[test]
fn no_path_leads_out_of_the_data_folder() {
    let outer = tempfile::tempdir().expect("a temporary folder");
    let data = outer.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let inside = run(&data);
    let outside = run(outer.path());
    let name = outside.root().file_name().expect("a name").to_str().expect("UTF-8").to_string();
    let site = site(&data, "127.0.0.1", None);
    let absolute = outside.root().display().to_string();
    let mut tries = vec![
        format!("../{name}"),
        format!("..%2f{name}"),
        format!("%2e%2e/{name}"),
        format!("x/../../{name}"),
        format!("..%5c{name}"),
        absolute.clone(),
        absolute.replace('/', "%2f"),
        "..".to_string(),
        ".".to_string(),
        "%00".to_string(),
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.root(), data.join("link")).expect("a link");
        tries.push("link".to_string());
    }
    for run in &tries {
        for path in ["/api/run", "/replay.gif"] {
            let answer = site.answer(&get(&format!("{path}?run={run}"), &[]));
            assert_eq!(answer.status, 404, "{path} {run}");
            assert!(String::from_utf8_lossy(&answer.body).contains("there is no such run"), "{path} {run}");
        }
    }
    let list = json(&site.answer(&get("/api/runs", &[])));
    assert_eq!(list["runs"].as_array().map(Vec::len), Some(1), "a link is no run");
    // nor does a file of a run that came from elsewhere
    #[cfg(unix)]
    {
        let own = inside.root().file_name().expect("a name").to_str().expect("UTF-8");
        std::os::unix::fs::symlink(outside.spec(), inside.run_facts()).expect("a link");
        let answer = site.answer(&get(&format!("/api/run?run={own}"), &[]));
        assert!(String::from_utf8_lossy(&answer.body).contains("a link in this run leads elsewhere"));
    }
    assert!(inside.root().exists());
}

#[test]
fn another_name_or_site_is_refused() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let site = site(data.path(), "127.0.0.1", None);
    let own = format!("127.0.0.1:{}", site.address.port());
    for host in ["localhost", "localhost:8040", "127.0.0.1:9", "[::1]:8040", &own] {
        assert_eq!(site.answer(&get("/api/runs", &[("host", host)])).status, 200, "{host}");
    }
    for host in
        ["evil.example", "evil.example:8040", "localhost.evil.example", "127.0.0.1.evil.example:1", "", "localhost:x"]
    {
        assert_eq!(site.answer(&get("/api/runs", &[("host", host)])).status, 403, "{host}");
    }
    for from in ["cross-site", "same-site"] {
        assert_eq!(site.answer(&get("/api/runs", &[("sec-fetch-site", from)])).status, 403, "{from}");
        assert_eq!(site.answer(&get("/", &[("sec-fetch-site", from)])).status, 200, "a link may lead here");
    }
    assert_eq!(site.answer(&get("/api/runs", &[("sec-fetch-site", "same-origin")])).status, 200);
}

#[test]
fn a_token_is_asked_for_and_kept_in_a_cookie() {
    let token = "0123456789abcdef";
    let data = tempfile::tempdir().expect("a temporary folder");
    let site = site(data.path(), "127.0.0.1", Some(token));
    let status = |target: &str, headers: &[(&str, &str)]| site.answer(&get(target, headers)).status;
    assert_eq!(status("/", &[]), 401);
    assert_eq!(status("/live.js", &[]), 401);
    for wrong in ["0123456789abcdeF", "0123456789abcde", "0123456789abcdef0", ""] {
        assert_eq!(status(&format!("/?token={wrong}"), &[]), 401, "{wrong}");
        assert_eq!(status("/api/runs", &[("authorization", &format!("Bearer {wrong}"))]), 401, "{wrong}");
    }
    assert_eq!(status("/api/runs", &[("authorization", &format!("Bearer {token}"))]), 200);
    assert_eq!(status(&format!("/api/runs?token={token}"), &[]), 200);
    let entry = site.answer(&get(&format!("/?token={token}"), &[]));
    assert_eq!((entry.status, &entry.headers[0]), (303, &("Location", "/".to_string())));
    let cookie = &entry.headers[1].1;
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().expect("a pair");
    assert_eq!(status("/api/runs", &[("cookie", &format!("a=b; {pair}"))]), 200);
    assert_eq!(status("/api/runs", &[("cookie", &format!("other_{pair}"))]), 401);
    // with a token any name may be used: a name server cannot know it
    assert_eq!(status("/api/runs", &[("host", "lab.example"), ("authorization", &format!("Bearer {token}"))]), 200);
}

#[test]
fn an_address_that_others_reach_needs_a_token_that_cannot_be_guessed() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let bind = |address: &str, token: Option<&str>| {
        let address = address.parse().expect("an address");
        let options = Options { data: data.path().to_path_buf(), address, port: 0, token: token.map(str::to_string) };
        Server::bind(options).err().map(|error| error.to_string())
    };
    let refused = bind("0.0.0.0", None).expect("refused");
    assert!(refused.contains("there is no token") && refused.contains("hint: add `--token`"), "{refused}");
    for weak in ["", "short", "0123456789abcde;", "0123456789 abcdef"] {
        assert!(bind("0.0.0.0", Some(weak)).expect("refused").contains("a token has 16"), "{weak}");
    }
    assert_eq!(bind("0.0.0.0", Some("0123456789abcdef")), None);
}

#[test]
fn a_real_connection_is_answered_and_closed() {
    use std::io::{Read, Write};
    let data = tempfile::tempdir().expect("a temporary folder");
    let address = "127.0.0.1".parse().expect("an address");
    let server = Server::bind(Options { data: data.path().into(), address, port: 0, token: None }).expect("a port");
    let at = server.site.address;
    std::thread::spawn(move || server.run());
    let talk = |text: &str| {
        let mut stream = TcpStream::connect(at).expect("connected");
        stream.write_all(text.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("closed in the end");
        answer
    };
    let page = talk("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("</html>\n"));
    for header in
        ["X-Frame-Options: DENY", "frame-ancestors 'none'", "Cross-Origin-Resource-Policy: same-origin", "nosniff"]
    {
        assert!(page.contains(header), "{header}");
    }
    assert!(!page.contains("Access-Control"));
    let head = talk("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Length: "));
    assert!(talk("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(17 << 10));
    assert!(talk(&long).starts_with("HTTP/1.1 400 "));
}
