// Going to another page with other parameters, the server's client writes two entries into the browser's history: the
// old page with the new parameters, then the new page. The first is a view that was never shown, so the second replaces it
// and "back" leads to the page before.
function keepHistoryWhole() {
  if (window.circuitsHistory) return;
  window.circuitsHistory = { at: 0, search: "" };
  const push = window.history.pushState.bind(window.history);
  window.history.pushState = (state, unused, url) => {
    const last = window.circuitsHistory, now = window.location, next = new URL(url ?? now.href, now.href);
    const moves = next.pathname !== now.pathname;
    if (moves && next.search && next.search === last.search && next.search === now.search && Date.now() - last.at < 20000) {
      window.circuitsHistory = { at: 0, search: "" };
      window.history.replaceState(state, unused, url);
      return;
    }
    window.circuitsHistory = { at: moves ? 0 : Date.now(), search: next.search };
    push(state, unused, url);
  };
}

// Pages lie beside each other under the app's own folder. The address always holds the whole view, also where a link left out what it shares with the default.
function address(path) {
  const now = window.location, whole = new URL(now.pathname.replace(/[^/]*$/, "") + path, now.origin);
  const zoom = new URLSearchParams(now.search).get("zoom"); // which only the browser knows: see the graph's script
  if (zoom && !whole.searchParams.has("zoom")) whole.search += (whole.search ? "&" : "?") + "zoom=" + zoom;
  return whole;
}

function completeAddress(path) {
  const whole = address(path), now = new URLSearchParams(window.location.search);
  const missing = [...whole.searchParams.keys()].some((name) => !now.has(name));
  if (missing && whole.pathname === window.location.pathname) window.history.replaceState(window.history.state, "", whole);
}

export default function ({ parentElement, data }) {
  keepHistoryWhole();
  completeAddress(data.path);
  const button = parentElement.querySelector(".link");
  const label = (text) => { button.textContent = text; };
  label("Copy link");
  button.onclick = async () => {
    const link = address(data.path).toString();
    button.dataset.link = link;
    try {
      await navigator.clipboard.writeText(link);
      label("Copied");
    } catch {
      window.prompt("Copy this link", link);
    }
    setTimeout(() => label("Copy link"), 1500);
  };
}
