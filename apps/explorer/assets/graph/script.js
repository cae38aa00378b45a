const MOST_LARGE = 14; // units of a graph that shows several images a unit, and all kernels
// images a unit side by side, pixels of one, room for the text below, gaps, room for lines, and sizes of what is in it
const SIZES = {
  large: { across: 3, tile: 62, text: 44, gap: [0, 12], between: 200, kernel: 44, line: [1.3, 7], label: 13, small: 11 },
  small: { across: 1, tile: 72, text: 20, gap: [8, 8], between: 120, kernel: 28, line: [0.8, 5], label: 15, small: 9 },
};
const HEAD = 34, MARGIN = 12, REST = 30, FARTHEST = 0.5, NEAREST = 6, INSIDE = 3;

// Layers are bands, sources to the left of their targets. A band wraps into as many columns as make the pictures of the
// whole graph largest in the visible area; its units are ordered by where their targets are, so that few lines cross.
function arrange(data, width, height) {
  const large = data.nodes.length <= MOST_LARGE, size = large ? SIZES.large : SIZES.small;
  const bands = data.columns.map(() => []), rank = {}, out = {};
  for (const edge of data.edges) (out[edge.source] ??= []).push(edge);
  for (const node of data.nodes) bands[node.column].push(node);
  for (let c = bands.length - 1; c >= 0; c -= 1) {
    const place = (node) => {
      const edges = (out[node.unit] ?? []).filter((e) => rank[e.target] !== undefined);
      const weight = edges.reduce((sum, e) => sum + Math.abs(e.strength) + 1e-12, 0);
      const at = edges.reduce((sum, e) => sum + (Math.abs(e.strength) + 1e-12) * rank[e.target], 0);
      return { node, at: weight ? at / weight : 0.5, total: edges.reduce((sum, e) => sum + e.strength, 0) };
    };
    const placed = bands[c].map(place).sort((a, b) => (Math.round(1e6 * (a.at - b.at)) || b.total - a.total));
    bands[c] = placed.map((p) => p.node);
    bands[c].forEach((node, i) => { rank[node.unit] = (i + 0.5) / bands[c].length; });
  }
  const strip = { w: size.across * (size.tile + INSIDE) - INSIDE, h: size.tile, across: size.across };
  // the target of a small circuit is a square of four
  const block = large ? { w: 2 * strip.h + INSIDE, h: 2 * strip.h + INSIDE, across: 2 } : strip;
  const cell = [strip.w + size.gap[0], strip.h + size.text + size.gap[1]];
  const most = Math.max(...bands.map((band) => band.length));
  const shape = (rows) => {
    const columns = bands.map((band) => Math.max(1, Math.ceil(band.length / rows)));
    const tallest = Math.max(...bands.map((band, i) => Math.ceil(band.length / columns[i])));
    const w = columns.reduce((sum, k) => sum + k * cell[0] - size.gap[0], 0) + (bands.length - 1) * size.between + 2 * MARGIN + REST;
    return { columns, w, h: HEAD + Math.max(tallest * cell[1] - size.gap[1], block.h + size.text) + MARGIN };
  };
  const scale = ({ w, h }) => Math.min(width / w, height / h);
  let best = shape(most);
  for (let rows = large ? 0 : most - 1; rows > 0; rows -= 1) if (scale(shape(rows)) > 1.02 * scale(best)) best = shape(rows);
  const box = {}, heads = [], heading = large ? 14 : 17, spare = (best.h * width) / height - best.w;
  // where the height decides, lines get what is left of the width
  const between = size.between + Math.max(0, Math.min(1.5 * size.between, spare / Math.max(1, bands.length - 1)));
  best.w += (between - size.between) * (bands.length - 1);
  let x = MARGIN + REST;
  bands.forEach((band, c) => {
    const k = best.columns[c], rows = Math.ceil(band.length / k);
    const alone = band.length === 1 && band[0].unit === data.target, form = alone ? block : strip;
    const tall = alone ? block.h + size.text : rows * cell[1] - size.gap[1], top = HEAD + (best.h - MARGIN - HEAD - tall) / 2;
    band.forEach((node, i) => { box[node.unit] = { x: x + (i % k) * cell[0], y: top + Math.floor(i / k) * cell[1], ...form }; });
    // Beyond the units of the last layer the graph is cut off, so that its name ends there, and shares the room before it
    // with the layer before. Of names that are too long the end says more than the start. A letter is 0.6 of its height.
    const right = x + Math.max(k * cell[0] - size.gap[0], form.w), last = c === bands.length - 1, head = data.columns[c];
    const room = c < bands.length - 2 ? between : between / 2, letters = Math.floor((right - x + room) / (0.6 * heading)) - 1;
    const name = head.length <= letters ? head : "\u2026" + head.slice(1 - letters);
    heads.push(last && 0.6 * heading * name.length > right - x ? [right, name, "end", head] : [x, name, "start", head]);
    x += k * cell[0] - size.gap[0] + between;
  });
  return { size, box, heads, heading, width: best.w, height: best.h, large };
}

// `memory` outlives the element's content: what is visible, and the gesture that is under way.
function build(root, memory, data, setTriggerValue) {
  const make = (tag, attributes, ...parts) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    for (const part of parts) { if (typeof part === "string") node.textContent = part; else node.append(part); }
    return node;
  };
  const nodes = Object.fromEntries(data.nodes.map((n) => [n.unit, n]));
  const edges = Object.fromEntries(data.edges.map((e) => [e.edge, e]));
  const name = (unit) => nodes[unit].label || nodes[unit].address;
  const cropped = (text, room) => text.length <= room ? text : text.slice(0, room - 1).trimEnd() + "\u2026";
  const button = (text, act, kind = "") => {
    const node = element("button", kind, text);
    node.type = "button";
    node.onclick = act;
    return node;
  };

  const stage = element("div", "stage"), panel = element("aside", "panel"), about = element("div", ""), tools = element("div", "tools");
  const svg = make("svg", {}), world = make("g", {}), chip = element("button", "chip");
  stage.tabIndex = 0;
  stage.setAttribute("role", "group");
  stage.setAttribute("aria-label", data.about + ". Plus and minus zoom, arrows pan, 0 fits the graph, T shows the target.");
  about.setAttribute("aria-live", "polite");
  panel.setAttribute("aria-label", "What is selected");
  panel.tabIndex = 0;
  svg.append(world);
  stage.append(svg, chip);
  root.replaceChildren(stage, tools, panel);
  // the part of the window that is left below the page's head; at least what a graph needs
  root.style.setProperty("--tall", memory.tall + "px");
  const area = () => { const r = stage.getBoundingClientRect(); return [Math.max(r.width, 200), Math.max(r.height, 200)]; };
  const placed = arrange(data, ...area()), { size, box } = placed;

  // -- lines, kernels, units
  const lines = make("g", {}), kernels = make("g", {}), units = make("g", {}), parts = {};
  world.append(lines, units, kernels);
  for (const [x, text, anchor, layer] of placed.heads) {
    const head = make("text", { class: "heading", x, y: 22, "text-anchor": anchor, "font-size": placed.heading }, text);
    if (text !== layer) head.append(make("title", {}, layer));
    world.append(head);
  }
  const middle = (unit) => box[unit].y + box[unit].h / 2;
  const slots = {}, stacks = {};
  for (const key of ["source", "target"]) {
    const all = key === "target" ? slots : stacks, other = key === "target" ? "source" : "target";
    for (const edge of data.edges) (all[edge[key]] ??= []).push(edge);
    for (const list of Object.values(all)) list.sort((a, b) => middle(a[other]) - middle(b[other]));
  }
  const spread = (list, edge, side, most) => {
    const step = Math.min(most, (0.86 * side) / Math.max(1, list.length - 1));
    return (list.indexOf(edge) - (list.length - 1) / 2) * step;
  };
  const thick = (edge) => size.line[0] + (size.line[1] - size.line[0]) * Math.min(1, edge.share);
  for (const edge of [...data.edges].sort((a, b) => a.share - b.share)) {
    const stack = stacks[edge.source], side = Math.min(size.kernel, (box[edge.source].h + size.text) / stack.length - 5);
    const from = [box[edge.source].x + box[edge.source].w, middle(edge.source)];
    const start = placed.large ? [from[0] + 14 + side, from[1] + spread(stack, edge, 1e6, side + 5)] : from;
    const end = [box[edge.target].x - 3, middle(edge.target) + spread(slots[edge.target], edge, box[edge.target].h, placed.large ? 15 : 8)];
    const bend = (start[0] + (placed.large ? 46 : 0) + end[0]) / 2, wide = thick(edge), head = placed.large ? 9 : 6, half = 0.9 * wide + 2;
    const level = placed.large ? `H${start[0] + 46}` : "";
    const group = make("g", { class: "edge " + edge.kind, opacity: placed.large ? 0.9 : 0.14 + 0.7 * Math.min(1, edge.share) });
    const path = `M${start[0]} ${start[1]}${level}C${bend} ${start[1]} ${bend} ${end[1]} ${end[0] - head} ${end[1]}`;
    group.append(make("path", { class: "line", d: path, "stroke-width": wide }), make("path", { class: "hit", d: path }));
    group.append(edge.kind === "minus"
      ? make("rect", { class: "head", x: end[0] - head, y: end[1] - half, width: 3, height: 2 * half })
      : make("path", { class: "head", d: `M${end[0]} ${end[1]}l${-head - 1} ${-half}v${2 * half}Z` }));
    group.append(make("title", {}, edge.title));
    lines.append(group);
    parts[edge.edge] = group;
    reacts(group, { edge: edge.edge });
    if (placed.large) {
      lines.append(make("path", { class: "line stub " + edge.kind, d: `M${from[0]} ${from[1]}L${start[0] - side} ${start[1]}`, "stroke-width": Math.min(wide, 3) }));
      kernels.append(thumbnail(edge, start[0] - side, start[1] - side / 2, side));
      kernels.append(make("text", { class: "number " + edge.kind, x: start[0] + 5, y: start[1] - wide / 2 - 4, "font-size": size.small }, edge.number));
    }
  }
  function thumbnail(edge, x, y, side) {
    const [h, w] = edge.shape.map((n) => (n * side) / Math.max(...edge.shape));
    const at = { x: x + (side - w) / 2, y: y + (side - h) / 2, width: w, height: h };
    const group = make("g", { class: "click" + (edge.edge === data.edge ? " marked" : ""), tabindex: 0, role: "button", "aria-label": edge.title },
      make("title", {}, edge.title), make("rect", { class: "paper", ...at }),
      make("image", { preserveAspectRatio: "none", href: edge.kernel, style: "image-rendering: pixelated", ...at }),
      make("rect", { class: "frame " + edge.kind, ...at }), make("rect", { class: "ring", x: at.x - 3, y: at.y - 3, width: w + 6, height: h + 6, rx: 4 }));
    group.dataset.edge = edge.edge;
    reacts(group, { edge: edge.edge });
    return group;
  }
  for (const node of data.nodes) {
    const { x, y, w, h, across } = box[node.unit], step = size.tile + INSIDE, below = y + h;
    const pinned = data.pins.includes(node.unit), chosen = data.selected.includes(node.unit);
    const group = make("g", { class: "click unit" + (chosen ? " selected" : "") + (node.unit === data.target ? " target" : ""),
      tabindex: 0, role: "button", "aria-pressed": chosen, "aria-label": node.title }, make("title", {}, node.title));
    group.dataset.unit = node.unit;
    if (node.members.length) group.append(make("rect", { class: "behind", x: x + 5, y: y - 5, width: w, height: h, rx: 3 }));
    group.append(make("rect", { class: "back", x, y, width: w, height: h }));
    node.images.slice(0, placed.large ? Math.round((across * h) / size.tile) : 1).forEach((href, i) => group.append(make("image", {
      x: x + (i % across) * step, y: y + Math.floor(i / across) * step, width: size.tile, height: size.tile,
      preserveAspectRatio: "xMidYMid slice", href })));
    group.append(make("rect", { class: "ring", x: x - 3, y: y - 3, width: w + 6, height: h + 6, rx: 4 }));
    const index = node.address.slice(Math.max(0, node.address.lastIndexOf(":"))), spare = placed.large || !node.number ? 0 : 4.6 * node.number.length + 4;
    const text = (kind, at, size, words, room, side = {}) =>
      group.append(make("text", { class: kind, x, y: at, "font-size": size, ...side }, cropped(words, Math.max(3, Math.floor(room / (0.57 * size))))));
    let line = below + size.label + 2;
    text("label", line, size.label, node.label || (placed.large ? node.address : index), w - spare);
    if (placed.large) {
      if (node.label) text("address", (line += 15), size.small, node.address, w);
      if (node.rest) {
        text("address", (line += 15), size.small, node.rest, w + 40);
        group.append(make("path", { class: "line rest", d: `M${x - 26} ${below - 4}H${x - 3}`, "stroke-width": 2 }));
      }
    } else if (node.number) { // what the units not shown add up to
      text("address", line, size.small, node.number, w, { x: x + w, "text-anchor": "end" });
    }
    if (pinned) group.append(make("circle", { class: "pin", cx: x + w - 2, cy: y + 2, r: placed.large ? 7 : 6 }));
    units.append(group);
    parts[node.unit] = group;
    reacts(group, { unit: node.unit });
  }

  // -- what is selected, or under the pointer
  function reacts(group, what) {
    const act = (event) => {
      if (memory.dragged) return;
      if (what.edge) return setTriggerValue("edge", what.edge);
      const more = event.shiftKey || event.ctrlKey || event.metaKey, units = data.selected.filter((u) => u !== what.unit);
      const again = units.length < data.selected.length;
      setTriggerValue("select", more ? (again ? units : [...units, what.unit]).join(",") : again && !units.length ? "" : what.unit);
    };
    group.onclick = act;
    group.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(event); } };
    group.onpointerenter = (event) => { if (event.pointerType !== "touch") show(what); };
    group.onpointerleave = () => show(null);
    group.onfocus = () => { show(what); if (what.unit) reveal(what.unit); };
    group.onblur = () => show(null);
  }
  const selection = edges[data.edge] ? { edge: data.edge } : { unit: [...data.selected].reverse().find((u) => nodes[u]) };
  function show(hovered) {
    const active = hovered ?? selection, lit = new Set();
    for (const edge of data.edges) {
      if (edge.edge === active.edge || active.unit === edge.source || active.unit === edge.target) {
        for (const part of [edge.edge, edge.source, edge.target]) lit.add(part);
      }
    }
    if (active.unit) lit.add(active.unit);
    svg.setAttribute("class", lit.size && !placed.large ? "dim" : "");
    for (const [key, part] of Object.entries(parts)) part.classList.toggle("lit", lit.has(key));
    // a kernel under the pointer stays the element that it is, or its click would be lost
    if (!placed.large && !(hovered?.edge && [...kernels.children].some((k) => k.dataset.edge === hovered.edge))) {
      kernels.replaceChildren(...data.edges.filter((e) => lit.has(e.edge)).map((e) => e.target === active.unit || active.edge
        ? thumbnail(e, box[e.source].x + box[e.source].w + 4, middle(e.source) - size.kernel / 2, size.kernel)
        : thumbnail(e, box[e.target].x - size.kernel - 12, middle(e.target) - size.kernel / 2, size.kernel)));
    }
    describe(active, hovered !== null && (hovered.unit !== selection.unit || hovered.edge !== selection.edge));
  }
  const picture = (unit, side) => {
    const image = nodes[unit].images[0] ? loadedImage(nodes[unit].images[0], "", "picture") : element("span", "picture none");
    image.style.width = image.style.height = side + "px";
    return image;
  };
  const kernel = (edge, side) => {
    const image = loadedImage(edge.kernel, "kernel: " + edge.effect, "kernel sharp " + edge.kind);
    image.style.width = (side * edge.shape[1]) / Math.max(...edge.shape) + "px";
    return image;
  };
  function listed(title, list, other) {
    if (!list?.length) return [];
    const rows = [...list].sort((a, b) => Math.abs(b.strength) - Math.abs(a.strength)).map((edge) => {
      const row = button("", () => setTriggerValue("edge", edge.edge), "row");
      row.append(picture(edge[other], 30), kernel(edge, 24), element("span", "name", name(edge[other])), element("span", "sum " + edge.kind, edge.number));
      row.title = edge.title;
      return row;
    });
    return [element("h6", "", title), ...rows];
  }
  function describe(active, passing) {
    const inside = [], actions = element("div", "actions");
    if (active.edge) {
      const edge = edges[active.edge], ends = element("div", "ends");
      ends.append(picture(edge.source, 72), kernel(edge, 96), picture(edge.target, 72));
      inside.push(element("h5", "", `${name(edge.source)} \u2192 ${name(edge.target)}`), ends, element("p", "muted", edge.effect), element("p", "", edge.about));
      if (!passing) actions.append(button("Clear", () => setTriggerValue("edge", ""), "plain"));
    } else if (active.unit) {
      const node = nodes[active.unit], images = element("div", "images");
      images.append(...node.images.map((src, i) => loadedImage(src, `${data.factors?.length ? "" : "top activating "}image ${i + 1} of ${node.address}`, "picture")));
      inside.push(element("h5", "", node.label || node.address), element("p", "muted", [node.label && node.address, node.about].filter(Boolean).join("; ")), images);
      if (node.members.length) inside.push(element("p", "", "A group of " + node.members.join(", ")));
      if (!passing) {
        if (node.href) {
          const open = unitLink({ href: node.href, unit: node.unit }, "primary", setTriggerValue);
          open.textContent = "Open unit";
          actions.append(open, button("Trace it", () => setTriggerValue("trace", node.unit)),
            button(data.pins.includes(node.unit) ? "Unpin" : "Pin", () => setTriggerValue("pin", node.unit)));
        }
        actions.append(button("Clear", () => setTriggerValue("select", ""), "plain"));
        inside.push(actions);
        if (node.href) inside.push(...scaling());
      }
      inside.push(...listed("Incoming", slots[active.unit], "source"), ...(node.rest ? [element("p", "muted", node.rest)] : []),
        ...listed("Outgoing", stacks[active.unit], "target"));
    } else {
      inside.push(element("h5", "", data.about), element("p", "muted",
        "Point at a unit or a line to see its images and weights; click to keep it here. Shift and click adds units, to group them."),
        legend());
      if (data.saved.length) inside.push(element("h6", "", "Saved circuits"), ...data.saved.map((circuit) => {
        const link = element("a", "saved", circuit.name);
        link.href = circuit.href;
        return link;
      }));
    }
    if (active.edge) inside.push(actions);
    about.replaceChildren(...inside);
  }
  function scaling() { // what the selected units are set to, and what that does
    if (!data.factors?.length) return [];
    const row = element("div", "actions"), group = data.selected.length ? [element("p", "outcome", data.outcome)] : [];
    row.append(...data.factors.map(({ value, text }) => {
      const choice = button(text, () => setTriggerValue("factor", value));
      choice.setAttribute("aria-pressed", value === data.factor);
      return choice;
    }));
    return [row, ...group];
  }
  function legend() {
    const list = element("div", "legend");
    for (const [kind, text] of [["plus", "\u25b6 excites"], ["minus", "\u275a inhibits"], ["rest", "\u2014 units not shown"]]) list.append(element("span", kind, text));
    return list;
  }
  function grouping() {
    const result = [], units = data.selected.length > 1 ? data.selected : data.pins, inside = units.filter((u) => nodes[u]);
    if (inside.length > 1) {
      const form = element("form", "supernode"), input = element("input", ""), label = element("label", "", "Group them as");
      input.maxLength = 40;
      input.placeholder = "parts";
      input.value = memory.typed ?? "";
      input.oninput = () => { memory.typed = input.value; };
      label.append(input);
      form.onsubmit = (event) => { event.preventDefault(); memory.typed = ""; setTriggerValue("group", [input.value, ...inside].join("\n")); };
      const send = element("button", "", "Group");
      form.append(element("p", "muted", (data.selected.length > 1 ? "Selected: " : "Pinned: ") + inside.map(name).join(", ")), label, send);
      result.push(form);
    }
    for (const group of data.groups) {
      const row = element("p", "grouped", `${group.name}: ${group.units.join(", ")} `);
      row.append(button("Ungroup", () => setTriggerValue("ungroup", group.name), "plain"));
      result.push(row);
    }
    return result;
  }

  panel.append(about, ...grouping()); // what is typed outlives what is under the pointer

  // -- zoom and pan
  let view = memory.key === data.key ? memory.view : null;
  const fit = () => {
    const [w, h] = area(), k = Math.min(w / placed.width, h / placed.height, 1.5);
    return { k, x: (w - k * placed.width) / 2, y: Math.max(0, (h - k * placed.height) / 2) };
  };
  const stored = () => {
    const text = new URLSearchParams(window.location.search).get("zoom") ?? "", [k, x, y] = text.split(",").map(Number);
    const [w, h] = area();
    return memory.key === undefined && text && [k, x, y].every(Number.isFinite) && k >= 0.02 && k <= 50 ? { k, x: w / 2 - k * x, y: h / 2 - k * y } : null;
  };
  const draw = () => {
    const [w, h] = area(), target = box[data.target];
    world.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.k})`);
    const x = view.x + view.k * (target.x + target.w / 2), y = view.y + view.k * (target.y + target.h / 2);
    chip.hidden = x > 0 && y > 0 && x < w && y < h;
    memory.view = view;
    memory.key = data.key;
  };
  // the address holds the middle of what is visible; nothing where the whole graph fits
  const remember = (fitted) => {
    const url = new URL(window.location.href), [w, h] = area(), at = (v) => Math.round(10 * v) / 10;
    memory.fitted = fitted;
    const text = fitted ? "" : [view.k.toFixed(3), at((w / 2 - view.x) / view.k), at((h / 2 - view.y) / view.k)].join(",");
    if ((url.searchParams.get("zoom") ?? "") === text) return;
    const others = url.search.slice(1).split("&").filter((part) => part && !part.startsWith("zoom="));
    url.search = [...others, ...(text ? ["zoom=" + text] : [])].join("&");
    window.history.replaceState(window.history.state, "", url);
  };
  const move = (next) => { view = next; draw(); clearTimeout(memory.later); memory.later = setTimeout(() => remember(false), 300); };
  const zoom = (factor, at) => {
    const [w, h] = area(), [x, y] = at ?? [w / 2, h / 2], low = FARTHEST * fit().k;
    const k = Math.max(low, Math.min(Math.max(NEAREST, low), view.k * factor));
    move({ k, x: x - (k / view.k) * (x - view.x), y: y - (k / view.k) * (y - view.y) });
  };
  const pan = (dx, dy) => move({ ...view, x: view.x + dx, y: view.y + dy });
  const whole = () => { view = fit(); draw(); clearTimeout(memory.later); remember(true); };
  const center = (unit) => {
    const [w, h] = area(), at = box[unit], k = Math.max(view.k, 1);
    move({ k, x: w / 2 - k * (at.x + at.w / 2), y: h / 2 - k * (at.y + at.h / 2) });
  };
  function reveal(unit) {
    const [w, h] = area(), at = box[unit], left = view.x + view.k * at.x, top = view.y + view.k * at.y;
    if (left < 0 || top < 0 || left + view.k * at.w > w || top + view.k * at.h > h) center(unit);
  }
  const point = (event) => { const r = stage.getBoundingClientRect(); return [event.clientX - r.left, event.clientY - r.top]; };
  const fingers = new Map();
  svg.onwheel = (event) => { event.preventDefault(); zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) / 240), point(event)); };
  svg.onpointerdown = (event) => { fingers.set(event.pointerId, point(event)); memory.dragged = false; memory.begun = point(event); };
  svg.onpointermove = (event) => {
    const before = fingers.get(event.pointerId), now = point(event);
    if (!before) return;
    if (!memory.dragged && fingers.size === 1 && Math.hypot(now[0] - memory.begun[0], now[1] - memory.begun[1]) < 5) return;
    if (!memory.dragged) svg.setPointerCapture(event.pointerId);
    memory.dragged = true;
    if (fingers.size === 1) pan(now[0] - before[0], now[1] - before[1]);
    fingers.set(event.pointerId, now);
    if (fingers.size === 2) {
      const [a, b] = [...fingers.values()], old = now === a ? [before, b] : [a, before];
      const distance = ([p, q]) => Math.max(1, Math.hypot(p[0] - q[0], p[1] - q[1]));
      zoom(distance([a, b]) / distance(old), [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]);
    }
  };
  svg.onpointerup = svg.onpointercancel = (event) => { fingers.delete(event.pointerId); setTimeout(() => { memory.dragged = false; }, 0); };
  stage.onkeydown = (event) => {
    const keys = { "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: whole, t: () => center(data.target),
      ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
      Escape: () => setTriggerValue("select", "") };
    const act = event.target?.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
    if (act) { event.preventDefault(); event.stopPropagation(); act(); }
  };

  // -- tools
  const tool = (text, label, act) => {
    const node = button(text, act);
    node.title = label;
    node.setAttribute("aria-label", label);
    return node;
  };
  const save = (blob, kind) => {
    const link = element("a", "");
    link.href = URL.createObjectURL(blob);
    link.download = data.file + "." + kind;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "opacity", "font-family", "font-weight", "visibility"];
  function picturesque() { // the graph as it is on the screen: its styles written into its elements
    const copy = svg.cloneNode(true), [w, h] = area(), from = [svg, ...svg.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
    from.forEach((node, i) => {
      const style = getComputedStyle(node);
      for (const key of STYLES) to[i].style.setProperty(key, style.getPropertyValue(key));
      for (const key of ["tabindex", "role", "class"]) to[i].removeAttribute(key);
    });
    for (const [key, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width: w, height: h, viewBox: `0 0 ${w} ${h}` })) copy.setAttribute(key, value);
    copy.prepend(make("rect", { width: w, height: h, fill: getComputedStyle(root).getPropertyValue("--paper") }));
    return new XMLSerializer().serializeToString(copy);
  }
  const asPng = () => {
    const image = new Image(), [w, h] = area();
    image.onload = () => {
      const canvas = element("canvas", "");
      canvas.width = 2 * w;
      canvas.height = 2 * h;
      canvas.getContext("2d").drawImage(image, 0, 0, 2 * w, 2 * h);
      canvas.toBlob((blob) => save(blob, "png"), "image/png");
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(picturesque());
  };
  const asJson = () => JSON.stringify({
    address: window.location.href, target: data.target, view: { scale: view.k, x: view.x, y: view.y, size: area() },
    prune: data.prune, pins: data.pins, groups: data.groups, selected: data.selected, edge: data.edge,
    nodes: data.nodes.map(({ unit, label, activation, rest, members }) => ({ unit, label, activation, rest, members, ...box[unit] })),
    edges: data.edges.map(({ source, target, strength, weight, values }) => ({ source, target, strength, weight, kernel: values })),
  }, null, 1);
  const threshold = element("label", "threshold"), range = element("input", ""), shown = element("output", "");
  Object.assign(range, { type: "range", min: 0, max: 60, step: 1, value: data.prune });
  range.setAttribute("aria-label", "Edges below this share of the strongest into their target are pruned, in percent");
  const weaker = () => {
    for (const edge of data.edges) parts[edge.edge].classList.toggle("weak", 100 * edge.share < Number(range.value) && !data.pins.includes(edge.source));
    shown.textContent = `\u2265 ${range.value} %`;
  };
  range.oninput = weaker;
  range.onchange = () => setTriggerValue("prune", Number(range.value));
  threshold.append("Edges", range, shown);
  tools.append(tool("+", "Zoom in", () => zoom(1.25)), tool("\u2212", "Zoom out", () => zoom(0.8)), tool("Fit", "Fit the whole graph", whole),
    tool("Target", "Show the target", () => center(data.target)), threshold,
    tool("SVG", "Save as SVG, as on the screen", () => save(new Blob([picturesque()], { type: "image/svg+xml" }), "svg")),
    tool("PNG", "Save as PNG, as on the screen", asPng),
    tool("JSON", "Save as JSON, as on the screen", () => save(new Blob([asJson()], { type: "application/json" }), "json")));
  chip.type = "button";
  chip.title = "Show the target";
  chip.append(picture(data.target, 40), element("span", "", "\u2192 " + name(data.target)));
  chip.onclick = () => center(data.target);

  view ??= stored();
  if (!view || (memory.key !== undefined && memory.key !== data.key) || memory.fitted) whole(); else { memory.fitted = false; draw(); }
  weaker();
  show(null);
}

const tallest = (root) => Math.max(420, Math.min(1000, window.innerHeight - Math.max(0, root.getBoundingClientRect().top) - 18));

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".graph"), memory = (root.memory ??= {}), first = !memory.tall;
  const mount = () => { memory.wide = root.getBoundingClientRect().width; build(root, memory, data, setTriggerValue); };
  // again where the width has changed, or what is above the graph, which the page may still be laying out
  memory.resize = () => {
    if (Math.abs(root.getBoundingClientRect().width - memory.wide) < 3 && Math.abs(tallest(root) - memory.tall) < 9) return;
    memory.tall = tallest(root);
    mount();
  };
  memory.tall ??= tallest(root);
  mount();
  if (first) setTimeout(() => memory.resize(), 500);
  if (!memory.watch && globalThis.ResizeObserver) {
    (memory.watch = new ResizeObserver(() => { if (Math.abs(root.getBoundingClientRect().width - memory.wide) > 2) memory.resize(); })).observe(root);
  }
}
