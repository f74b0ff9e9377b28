// The start of the console.
import {loadMe} from "./core/access.js";
import {html, render} from "./core/html.js";
import {listen, onSessionEnd} from "./core/live.js";
import {PAGES} from "./core/pages.js";
import {ErrorBox} from "./core/parts.js";
import {followLinks, navigate} from "./core/router.js";
import {applyTheme, Shell} from "./core/shell.js";

const RETURN = "jobcloud.return";
const WORKER = new URL("core/worker.js", import.meta.url).href;
// The stream's worker is the only address of a script that is made at run time.
const policy = globalThis.trustedTypes?.createPolicy("worker", {createScriptURL: () => WORKER});

// No other place leaves the console: the first visit of /account ends the cookie, so a second one would not know that
// there was a session.
function signIn() {
  sessionStorage.setItem(RETURN, location.pathname + location.search);
  location.assign("/account");  // the server sends a browser without a session on to the sign-in
}

async function start() {
  const root = document.getElementById("root");
  applyTheme();
  root.replaceChildren();
  onSessionEnd(signIn);
  try {
    await loadMe();
  } catch (problem) {
    if (problem.status === 401) return;
    render(html`<main><h1>jobcloud</h1><${ErrorBox} problem=${problem} again=${() => location.reload()} /></main>`, root);
    setTimeout(() => location.reload(), 5_000);
    return;
  }
  const wanted = sessionStorage.getItem(RETURN);
  sessionStorage.removeItem(RETURN);
  if (wanted && location.pathname === "/") navigate(wanted, {replace: true});
  followLinks(parts => (parts[0] ?? "overview") in PAGES);
  render(html`<${Shell} />`, root);
  await listen(policy ? policy.createScriptURL(WORKER) : WORKER);
}

start();
