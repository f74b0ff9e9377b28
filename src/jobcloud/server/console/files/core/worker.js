// One stream of changes for all tabs of a browser. Browsers open at most six connections to an HTTP/1.1 server, and each
// stream takes one. The stream is closed while no tab is visible.

const URL_OF_CHANGES = "/api/v1/changes";
const FIRST_WAIT_MS = 1_000, LONGEST_WAIT_MS = 15_000;
const visible = new Map();  // port → whether its tab is visible
let source = null, timer = 0, wait = FIRST_WAIT_MS, status = "closed", numbers = null;

function tell(message) {
  for (const port of visible.keys()) port.postMessage(message);
}

function setStatus(next) {
  if (next === status) return;
  status = next;
  tell({kind: "status", status});
}

function open() {
  clearTimeout(timer);
  timer = 0;
  source = new EventSource(URL_OF_CHANGES);
  // An open stream may be a refusal, for example of a standby without a leader. So only what the leader says counts.
  const heard = () => {
    wait = FIRST_WAIT_MS;
    setStatus("live");
  };
  source.addEventListener("changes", event => {
    heard();
    tell({kind: "changes", changes: JSON.parse(event.data)});
  });
  source.addEventListener("state", event => {
    heard();
    numbers = JSON.parse(event.data);
    tell({kind: "numbers", numbers});
  });
  source.addEventListener("problem", () => setStatus("stale"));
  source.onerror = () => {
    setStatus("stale");
    // A refusal with a status ends an EventSource for good. It tells no status, so a tab asks who it is.
    if (source.readyState === EventSource.CLOSED) {
      tell({kind: "refused"});
      timer = setTimeout(open, wait);
      wait = Math.min(LONGEST_WAIT_MS, 2 * wait);
    }
  };
}

function close() {
  clearTimeout(timer);
  timer = 0;
  source?.close();
  source = null;
  status = "closed";
}

function update() {
  const wanted = [...visible.values()].some(Boolean);
  if (wanted && !source && !timer) open();
  if (!wanted) close();
}

export function attach(port) {
  // A tab that crashed says nothing. Not all browsers have this event.
  port.addEventListener("close", () => {
    visible.delete(port);
    update();
  });
  port.onmessage = ({data}) => {
    // A tab that ends says so, and then that it is hidden.
    if (data.kind === "gone") visible.delete(port);
    else if (data.kind === "hello" || visible.has(port)) visible.set(port, data.visible);
    if (data.kind === "hello") {
      port.postMessage({kind: "status", status});
      if (numbers) port.postMessage({kind: "numbers", numbers});
    }
    update();
  };
}

// In a shared worker, each tab connects. Without shared workers, a tab imports this module.
if (typeof SharedWorkerGlobalScope !== "undefined") {
  self.onconnect = ({ports}) => attach(ports[0]);
}
