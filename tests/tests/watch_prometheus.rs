//! What `leakwatch watch --listen` serves: by a plain client, and by Prometheus as Debian has it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use leakwatch_tests::kernel;
use leakwatch_tests::refusal::{Bystander, folder};
use leakwatch_tests::watching::{Watching, get, program_named, sample, wait_for};

/// A name with all that a label has to escape.
const HOSTILE: &str = "a\"b\\c{d}\u{1b}e";

struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(folder: &Path, scraped: u16) -> Self {
        let config = folder.join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: leakwatch\n    static_configs:\n      - targets: ['127.0.0.1:{scraped}']\n"
        );
        fs::write(&config, text).expect("it is ours");
        // Free a moment ago; nothing else here asks for fixed ones.
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .expect("there is a port")
            .port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start prometheus ({error}): apt-get install prometheus"));
        Self { child, port }
    }

    /// The series that a query finds, by its own API.
    fn query(&self, query: &str) -> Vec<serde_json::Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let Ok((_, body)) = get(self.port, &format!("/api/v1/query?query={encoded}"), "*/*") else {
            return Vec::new();
        };
        let start = body.find('{').unwrap_or(0);
        let end = body.rfind('}').map_or(0, |end| end + 1);
        let answer: serde_json::Value =
            serde_json::from_str(&body[start..end.max(start)]).unwrap_or_default();
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_scrapes_it_and_sees_the_series() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let program = program_named(folder.path(), "/bin/sleep".as_ref(), HOSTILE);
    let mut command = Command::new(&program);
    command.arg("600");
    let target = Bystander::start(command);
    let mut watch = Watching::start(&["--pid", &target.pid(), "--every", "200ms", "--listen", "0"]);
    let port = watch.port();

    // A plain client, in both formats.
    let page = wait_for("a sample", || {
        let (head, page) = get(port, "/metrics", "application/openmetrics-text; version=1.0.0").ok()?;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(
            head.contains("application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        sample(&page, "leakwatch_process_rss_bytes{")
            .is_some()
            .then_some(page)
    });
    assert!(page.ends_with("# EOF\n"), "{page}");
    let escaped = r#"service="a\"b\\c{d}\\x1be""#;
    assert!(page.contains(escaped), "{page}");
    let (head, page) = get(port, "/metrics", "text/plain").expect("it listens");
    assert!(
        head.contains("text/plain; version=0.0.4") && !page.contains("# EOF"),
        "{head}"
    );
    let (head, _) = get(port, "/elsewhere", "*/*").expect("it listens");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");

    // Prometheus.
    let prometheus = Prometheus::start(folder.path(), port);
    let series = wait_for("a series in Prometheus", || {
        prometheus.query("leakwatch_process_rss_bytes").into_iter().next()
    });
    assert_eq!(series["metric"]["service"], "a\"b\\c{d}\\x1be", "{series}");
    assert_eq!(series["metric"]["job"], "leakwatch");
    let value: f64 = series["value"][1]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("it is a number");
    assert!(value >= 4096.0, "{series}");
    let rounds = wait_for("counters in Prometheus", || {
        prometheus
            .query("leakwatch_watch_rounds_total")
            .into_iter()
            .next()
    });
    assert!(
        rounds["value"][1].as_str().is_some_and(|text| text != "0"),
        "{rounds}"
    );
    let up = wait_for("its own word that the scrape went well", || {
        prometheus.query("up{job=\"leakwatch\"} == 1").into_iter().next()
    });
    assert_eq!(up["metric"]["instance"], format!("127.0.0.1:{port}"));
    // Of the hostile name the one series is there, and none that it forged.
    assert_eq!(prometheus.query("{__name__=~\"leakwatch_process_pid\"}").len(), 1);
    let status = watch.terminate();
    assert_eq!(status.code(), Some(0), "{watch}");
}
