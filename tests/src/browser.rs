//! Debian's Chromium without a window, driven by the protocol of its own developer tools.
//!
//! The protocol's few calls that tests need are written as JSON over a websocket: the crates that have all of it generate
//! a hundred thousand lines and bring a TLS stack. Everything that the page complains of or asks the network for is kept.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// For a browser to start, and for any answer of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing that goes to the network by itself, and no first-run page.
const FLAGS: &[&str] = &[
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
];

/// How wide the window is, and whether the user likes it dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

impl View {
    #[must_use]
    pub fn phone(dark: bool) -> Self {
        Self {
            width: 390,
            height: 844,
            dark,
        }
    }

    #[must_use]
    pub fn desktop(dark: bool) -> Self {
        Self {
            width: 1400,
            height: 1000,
            dark,
        }
    }
}

/// One browser with one page. Dropped, it is ended and its profile goes.
pub struct Browser {
    child: Child,
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    calls: u64,
    /// Of the page, once there is one.
    session: Option<String>,
    events: Vec<Value>,
    scripts: bool,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one.
    ///
    /// # Panics
    /// When there is none, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new("chromium");
        command
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            // Whatever else it writes goes there too.
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            // Its sandbox refuses root; the page is our own file.
            command.arg("--no-sandbox");
        }
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start chromium (Debian: apt-get install chromium): {error}")
        });
        let address = address(&mut child, &profile.path().join("DevToolsActivePort"));
        let (socket, _) = tungstenite::connect(&address)
            .unwrap_or_else(|error| panic!("cannot talk to chromium at {address}: {error}"));
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream
                .set_read_timeout(Some(PATIENCE))
                .expect("a time above 0 is accepted");
        }
        let mut browser = Self {
            child,
            socket,
            calls: 0,
            session: None,
            events: Vec::new(),
            scripts: true,
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": page["targetId"], "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens a file from disk in a view, and waits until it is loaded.
    pub fn open(&mut self, file: &Path, view: View) {
        self.look(view);
        self.events.clear();
        let file = fs::canonicalize(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let navigated = self.call(
            "Page.navigate",
            json!({"url": format!("file://{}", file.display())}),
        );
        assert_eq!(navigated["errorText"], Value::Null, "{}", file.display());
        while !self
            .events
            .iter()
            .any(|event| event["method"] == "Page.loadEventFired")
        {
            self.read();
        }
        // Two frames later everything that loading started has been laid out. Without scripts nothing was started, nor
        // would a promise be kept.
        if !self.scripts {
            return;
        }
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))");
    }

    /// Another width or scheme, the page as it is.
    pub fn look(&mut self, view: View) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": view.width, "height": view.height, "deviceScaleFactor": 1, "mobile": view.width < 600}),
        );
        let scheme = if view.dark { "dark" } else { "light" };
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
    }

    /// As on paper.
    pub fn print(&mut self) {
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"media": "print", "features": []}),
        );
    }

    /// Whether the page's own scripts run, from the next page on.
    pub fn scripts(&mut self, run: bool) {
        self.scripts = run;
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": !run}));
    }

    /// What an expression is in the page; a promise is awaited.
    ///
    /// # Panics
    /// When it throws.
    pub fn value(&mut self, expression: &str) -> Value {
        let result = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        );
        let thrown = &result["exceptionDetails"];
        assert!(thrown.is_null(), "{expression} threw {thrown}");
        result["result"]["value"].clone()
    }

    /// The text of the first element that a selector finds, as it is shown.
    pub fn text(&mut self, selector: &str) -> String {
        let value = self.value(&format!(
            "document.querySelector({}).textContent",
            json!(selector)
        ));
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks the middle of the first element that a selector finds, as a mouse does.
    pub fn click(&mut self, selector: &str) {
        let place = self.value(&format!(
            "(() => {{ const it = document.querySelector({}); it.scrollIntoView({{block: 'center'}}); \
             const box = it.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        ));
        for (kind, buttons) in [("mousePressed", 1), ("mouseReleased", 0)] {
            self.call(
                "Input.dispatchMouseEvent",
                json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "buttons": buttons, "clickCount": 1}),
            );
        }
    }

    /// Types into whatever has the focus.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key that is no letter: `Enter`, `ArrowUp`, `Escape`, `Tab`.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            other => panic!("no key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if key == "Enter" && kind == "keyDown" {
                event["text"] = json!("\r");
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Writes what is seen to a PNG; with `whole` the page from top to bottom.
    pub fn screenshot(&mut self, file: &Path, whole: bool) {
        use base64::Engine as _;
        let shot = self.call(
            "Page.captureScreenshot",
            json!({"format": "png", "captureBeyondViewport": whole}),
        );
        let png = base64::engine::general_purpose::STANDARD
            .decode(shot["data"].as_str().unwrap_or_default())
            .expect("it is base64");
        assert!(png.starts_with(b"\x89PNG"), "a screenshot is a PNG");
        fs::write(file, png).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// What went wrong in the page since it was opened: exceptions, refused scripts, errors and warnings of the console;
    /// and every request but the one for the page itself.
    pub fn complaints(&mut self) -> Vec<String> {
        // Whatever is under way has arrived before the answer to this.
        self.value("new Promise(done => setTimeout(() => done(1), 50))");
        let quiet = |level: &Value| ["verbose", "info", "log", "debug"].iter().any(|it| level == it);
        self.events
            .iter()
            .filter(|event| match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => !quiet(&event["params"]["type"]),
                Some("Log.entryAdded") => !quiet(&event["params"]["entry"]["level"]),
                Some("Network.requestWillBeSent") => {
                    event["params"]["request"]["url"] != event["params"]["documentURL"]
                }
                _ => false,
            })
            .map(Value::to_string)
            .collect()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut call = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.socket
            .send(Message::text(call.to_string()))
            .unwrap_or_else(|error| panic!("{method}: {error}"));
        loop {
            let message = self.read();
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }

    /// The next message; an event is kept.
    fn read(&mut self) -> Value {
        loop {
            let message = match self.socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(_) => continue,
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("chromium says nothing more: {error}"),
            };
            let message: Value = serde_json::from_str(&message).expect("chromium speaks JSON");
            if message["method"].is_string() {
                self.events.push(message.clone());
            }
            return message;
        }
    }
}

/// Where it listens: it writes that to a file when it does.
fn address(child: &mut Child, file: &Path) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let (Some(port), Some(path)) = (text.lines().next(), text.lines().nth(1)) {
            return format!("ws://127.0.0.1:{port}{path}");
        }
        if let Ok(Some(status)) = child.try_wait() {
            panic!("chromium ended at once: {status}");
        }
        assert!(Instant::now() < deadline, "chromium does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked, it ends all of its processes; its own alone is killed where it does not.
        let close = json!({"id": 0, "method": "Browser.close"}).to_string();
        let _ = self.socket.send(Message::text(close));
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
