use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use sha2::{Digest, Sha256};

use super::*;
use crate::source::digest::hex;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &[u8] = b"pretend that these are weights";

/// A hub on this machine with one repository; `etag` is the name under which it says the weights are stored.
fn serve(etag: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines =
                BufReader::new(stream.try_clone().unwrap()).lines().map_while(std::result::Result::ok);
            let Some(request) = lines.next() else { continue };
            for _ in lines.take_while(|line| !line.is_empty()) {}
            stream.write_all(&answer(&request, &etag)).unwrap();
        }
    });
    format!("http://{address}")
}

fn answer(request: &str, etag: &str) -> Vec<u8> {
    let path = request.split(' ').nth(1).unwrap();
    let (etag, body): (&str, &[u8]) = match path.rsplit('/').next().unwrap() {
        "main" => {
            let files =
                ["config.json", "tokenizer.json", "model.safetensors", "onnx/model.onnx", "README.md"];
            let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({"rfilename": file})).collect();
            let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}",
                body.len()
            );
            return format!("{head}\r\nconnection: close\r\n\r\n{body}").into_bytes();
        }
        "config.json" => ("aaaa", b"{}"),
        "tokenizer.json" => ("bbbb", b"[]"),
        "model.safetensors" => (etag, WEIGHTS),
        _ => return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
    };
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\netag: \"{etag}\"\r\nx-repo-commit: {COMMIT}\r\n\
         content-range: bytes 0-{}/{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len() - 1,
        body.len(),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn hub(cache: &Path, endpoint: String) -> Hub {
    Hub {
        cache: cache.to_path_buf(),
        endpoint: Some(endpoint),
        token: None,
        answer_limit: Duration::from_secs(20),
        stall_limit: Duration::from_secs(20),
    }
}

fn repository() -> Repository {
    Repository::parse("hf:org/name").unwrap().unwrap()
}

#[test]
fn names_of_repositories() {
    let parse = |name| Repository::parse(name).map(|found| found.map(|it| (it.id, it.revision)));
    assert_eq!(parse("hf:a/b").unwrap(), Some(("a/b".to_owned(), "main".to_owned())));
    assert_eq!(parse("hf:a-1/b.c@v2").unwrap(), Some(("a-1/b.c".to_owned(), "v2".to_owned())));
    assert_eq!(parse("a/b").unwrap(), None);
    for name in ["hf:", "hf:a", "hf:a/b/c", "hf:../..", "hf:a/b@", "hf:a/b@../x", "hf:a/b?x"] {
        assert!(parse(name).is_err(), "{name}");
    }
}

#[test]
fn model_is_downloaded_verified_and_found_again_offline() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(cache.path(), serve(hex(&Sha256::digest(WEIGHTS))));
    let mut lines = Vec::new();
    let found =
        hub.resolve("hf:org/name", &repository(), false, &mut |line| lines.push(line.to_owned())).unwrap();
    assert_eq!(fs::read(found.path.join("model.safetensors")).unwrap(), WEIGHTS);
    assert!(holds(&found.path, "config.json") && !holds(&found.path, "README.md"));
    assert_eq!(found.origin, Origin::Hub { repo: "org/name".to_owned(), revision: COMMIT.to_owned() });
    assert!(lines[0].contains("org/name"), "{lines:?}");
    verify_snapshot(&found.path).unwrap();
    let again = hub.resolve("hf:org/name", &repository(), true, &mut |_| ()).unwrap();
    assert_eq!(again, found);
    let unreachable = Hub { endpoint: Some("http://127.0.0.1:9".to_owned()), ..hub };
    assert_eq!(unreachable.resolve("hf:org/name", &repository(), false, &mut |_| ()).unwrap(), found);
    fs::write(fs::canonicalize(found.path.join("model.safetensors")).unwrap(), b"other").unwrap();
    assert!(verify_snapshot(&found.path).is_err());
}

#[test]
fn weights_with_another_digest_are_refused_and_removed() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(cache.path(), serve("0".repeat(64)));
    let error = hub.resolve("hf:org/name", &repository(), false, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("SHA-256"), "{error}");
    assert!(hub.cached(&repository()).is_none());
}

#[test]
fn silent_hub_is_left_after_the_limit() {
    let cache = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let silent = Hub { answer_limit: Duration::from_millis(100), ..hub(cache.path(), endpoint) };
    let error = silent.resolve("hf:org/name", &repository(), false, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("no answer within 0.1 s"), "{error}");
}

#[test]
fn offline_never_asks() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(cache.path(), "http://127.0.0.1:9".to_owned());
    let error = hub.resolve("hf:org/name", &repository(), true, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("dormant models pull hf:org/name"), "{error}");
}

#[test]
fn single_gguf_is_a_model_and_several_are_not() {
    let info = |files: &[&str]| RepoInfo {
        siblings: files.iter().map(|&file| hf_hub::api::Siblings { rfilename: file.to_owned() }).collect(),
        sha: COMMIT.to_owned(),
    };
    assert_eq!(wanted("r", &info(&["a.gguf", "README.md"])).unwrap(), ["a.gguf"]);
    assert!(wanted("r", &info(&["a.gguf", "b.gguf"])).is_err());
    assert!(wanted("r", &info(&["../config.json", "../x.safetensors"])).is_err());
}
