const TILE = 64;
export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".atlas_map");
  root.setAttribute("role", "application");
  root.setAttribute("aria-label", data.label + ". Arrow keys go from cell to cell, Enter selects, plus and minus zoom, 0 shows all.");
  const board = element("div", "board"), preview = element("div", "preview"), keys = element("div", "keys");
  const side = data.grid * TILE, view = root.view ?? { scale: 0, x: 0, y: 0 };
  root.view = view;  // zoom and position stay when the page runs again
  board.style.width = board.style.height = side + "px";
  preview.hidden = true;
  preview.setAttribute("aria-live", "polite");
  const icon = (cell, size, kind) => {
    const box = element("span", "cell " + kind + (cell.position < 0 ? " none" : ""));
    box.style.width = box.style.height = size + "px";
    if (cell.position >= 0) {
      box.style.backgroundImage = `url(${data.sheet})`;
      box.style.backgroundSize = data.across * size + "px auto";
      box.style.backgroundPosition =
        `${-(cell.position % data.across) * size}px ${-Math.floor(cell.position / data.across) * size}px`;
    }
    return box;
  };
  const place = () => {
    view.fitted = false;
    board.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  };
  const least = () => Math.min(root.clientWidth, root.clientHeight) / side;
  const fit = () => {
    view.scale = least();
    view.x = (root.clientWidth - side * view.scale) / 2;
    view.y = (root.clientHeight - side * view.scale) / 2;
    place();
    view.fitted = true;
  };
  const zoom = (by, x = root.clientWidth / 2, y = root.clientHeight / 2) => {
    const scale = Math.min(8, Math.max(least() * 0.8, view.scale * by));
    view.x = x - (x - view.x) * scale / view.scale;
    view.y = y - (y - view.y) * scale / view.scale;
    view.scale = scale;
    place();
  };
  const boxes = new Map();
  let at = null;
  const point = (cell) => {
    if (at) boxes.get(at).classList.remove("at");
    at = cell;
    preview.hidden = !cell;
    if (!cell) return;
    boxes.get(cell).classList.add("at");
    preview.replaceChildren(icon(cell, 128, ""), ...cell.lines.map((line) => element("div", "line", line)));
    const x = view.x + (cell.column + 1) * TILE * view.scale + 10, y = view.y + cell.row * TILE * view.scale;
    const left = x + 220 > root.clientWidth ? view.x + cell.column * TILE * view.scale - 220 : x;
    preview.style.left = Math.max(4, left) + "px";
    preview.style.top = Math.max(4, Math.min(y, root.clientHeight - preview.offsetHeight - 4)) + "px";
  };
  const seen = (cell) => {  // a cell that the keys reach is moved into sight
    const x = view.x + (cell.column + 0.5) * TILE * view.scale, y = view.y + (cell.row + 0.5) * TILE * view.scale;
    if (x < 0 || x > root.clientWidth) view.x += root.clientWidth / 2 - x;
    if (y < 0 || y > root.clientHeight) view.y += root.clientHeight / 2 - y;
    place();
  };
  const pick = (cell) => setTriggerValue("cell", [cell.row, cell.column]);
  for (const cell of data.cells) {
    const size = TILE * cell.scale;
    const here = data.selected && data.selected[0] === cell.row && data.selected[1] === cell.column;
    const box = icon(cell, size, (cell.faint ? "faint " : "") + (here ? "here" : ""));
    box.style.left = cell.column * TILE + (TILE - size) / 2 + "px";
    box.style.top = cell.row * TILE + (TILE - size) / 2 + "px";
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", cell.about);
    box.dataset.cell = cell.row + "," + cell.column;
    box.onpointerenter = () => { if (!root.dragged) point(cell); };
    box.onclick = () => { if (!root.dragged) pick(cell); };
    boxes.set(cell, box);
    board.append(box);
  }
  const step = (down, right) => {
    const from = at ?? data.cells.find((c) => data.selected && c.row === data.selected[0] && c.column === data.selected[1]);
    if (!from) return data.cells.length && (point(data.cells[0]), seen(data.cells[0]));
    let best = null, least_ = Infinity;
    for (const cell of data.cells) {
      const along = (cell.row - from.row) * down + (cell.column - from.column) * right;
      const across = Math.abs((cell.row - from.row) * right) + Math.abs((cell.column - from.column) * down);
      if (along > 0 && along + 2 * across < least_) [best, least_] = [cell, along + 2 * across];
    }
    if (best) { seen(best); point(best); }
  };
  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  root.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== root) return;
    if (MOVES[event.key]) step(...MOVES[event.key]);
    else if (event.key === "Enter" && at) pick(at);
    else if (event.key === "+" || event.key === "=") zoom(1.3);
    else if (event.key === "-") zoom(1 / 1.3);
    else if (event.key === "0") fit();
    else if (event.key === "Escape") point(null);
    else return;
    event.preventDefault();
  };
  root.onwheel = (event) => {
    event.preventDefault();
    const box = root.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
  };
  const fingers = new Map();
  root.onpointerdown = (event) => {
    if (event.target.closest(".keys")) return;
    fingers.set(event.pointerId, event);
    root.dragged = false;
  };
  root.onpointermove = (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
    if (!root.dragged && Math.abs(dx) + Math.abs(dy) < 4) return;
    root.dragged = true;
    root.classList.add("drag");
    point(null);
    const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    if (other) {  // two fingers zoom
      const apart = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY);
      const box = root.getBoundingClientRect();
      zoom(apart(event) / Math.max(1, apart(before)), other.clientX - box.left, other.clientY - box.top);
    } else {
      view.x += dx;
      view.y += dy;
      place();
    }
    fingers.set(event.pointerId, event);
  };
  root.onpointerup = root.onpointercancel = (event) => {
    fingers.delete(event.pointerId);
    root.classList.remove("drag");
    setTimeout(() => { root.dragged = false; });
  };
  root.onpointerleave = (event) => { root.onpointerup(event); point(null); };
  for (const [text, about, act] of [["+", "Zoom in", () => zoom(1.3)], ["−", "Zoom out", () => zoom(1 / 1.3)], ["Fit", "Show all", fit]]) {
    const button = element("button", "", text);
    button.type = "button";
    button.title = about;
    button.setAttribute("aria-label", about);
    button.onclick = act;
    keys.append(button);
  }
  root.replaceChildren(board, preview, keys);
  root.resized?.disconnect();
  if (globalThis.ResizeObserver) {  // a phone that is turned shows all, too
    (root.resized = new ResizeObserver(() => { if (view.fitted) fit(); })).observe(root);
  }
  if (view.scale && !view.fitted) place(); else requestAnimationFrame(fit);
}
