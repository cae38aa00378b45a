export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".graph");
  const make = (tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const rect = (box, kind, grow = 0) => make("rect", {
    class: kind, x: box[0] - grow, y: box[1] - grow, width: box[2] + 2 * grow, height: box[3] + 2 * grow, rx: grow ? 4 : 0,
  });
  const cropped = (text, room) => text.length <= room ? text : text.slice(0, room - 1).trimEnd() + "\u2026";
  const svg = make("svg", { viewBox: `0 0 ${data.width} ${data.height}`, role: "group", "aria-label": data.about });
  svg.style.minWidth = 0.72 * data.width + "px";
  svg.style.maxWidth = 1.15 * data.width + "px";
  for (const [x, name] of data.headings) svg.append(make("text", { class: "heading", x, y: 34 }, name));
  const clickable = (kind, title, act) => {
    const group = make("g", { class: "click " + kind, tabindex: 0, role: "button", "aria-label": title });
    group.append(make("title", {}, title));
    group.onclick = act;
    group.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } };
    return group;
  };
  for (const line of data.lines) {
    svg.append(make("path", { class: "line " + line.kind, d: line.path, "stroke-width": line.width }));
    const [x, y] = line.end, wide = Math.max(5, line.width * 0.9 + 2);
    svg.append(line.kind === "minus"
      ? make("rect", { class: "head minus", x: x - line.arrow, y: y - wide, width: 3.5, height: 2 * wide })
      : make("path", { class: "head " + line.kind, d: `M${x} ${y}L${x - line.arrow - 1} ${y - wide}V${y + wide}Z` }));
  }
  for (const { kernel, kind, width } of data.lines) {
    if (!kernel) continue;
    svg.append(make("path", { class: "line " + kind, d: kernel.stub, "stroke-width": Math.min(width, 3) }));
    const group = clickable(kernel.edge === data.edge ? "marked" : "", kernel.title, () => setTriggerValue("edge", kernel.edge));
    group.dataset.edge = kernel.edge;
    const [x, y, w, h] = kernel.box;
    group.append(
      rect(kernel.box, "paper"),
      make("image", { class: "sharp", x, y, width: w, height: h, preserveAspectRatio: "none", href: kernel.src, style: "image-rendering: pixelated" }),
      rect(kernel.box, "frame " + kind), rect(kernel.box, "ring", 3),
    );
    svg.append(group, make("text", { class: "number " + kind, x: kernel.at[0], y: kernel.at[1] }, kernel.number));
  }
  for (const node of data.nodes) {
    const [x, y, w, h] = node.box, room = Math.max(12, Math.floor(w / 6.4));
    const group = clickable(data.selected.includes(node.unit) ? "selected" : "", node.title, () => setTriggerValue("node", node.unit));
    group.dataset.unit = node.unit;
    if (node.images.length) {
      const step = (w + 3) / node.across;
      group.append(rect(node.box, "ring", 3));
      node.images.forEach((src, i) => group.append(make("image", {
        x: x + (i % node.across) * step, y: y + Math.floor(i / node.across) * step, width: node.tile, height: node.tile,
        preserveAspectRatio: "xMidYMid slice", href: src,
      })));
    } else {
      group.append(rect(node.box, "back"), rect(node.box, "ring", 3));
    }
    let line = y + h + 16;
    if (node.label) {
      group.append(make("text", { class: "label", x, y: line }, cropped(node.label, room)));
      line += 16;
    }
    group.append(make("text", { class: "address", x, y: line }, cropped(node.address, room)));
    if (data.pins.includes(node.unit)) group.append(make("circle", { class: "pin", cx: x + w - 5, cy: line - 4, r: 4 }));
    svg.append(group);
  }
  for (const rest of data.rests) {
    const [x, y, w, h] = rest.box;
    const group = make("g", {});
    group.append(make("title", {}, rest.title), rect(rest.box, "back"));
    group.append(make("text", { class: "others", x: x + 10, y: y + h / 2 + 4 }, rest.text));
    group.append(make("text", { class: "others sum", x: x + w - 10, y: y + h / 2 + 4 }, rest.number));
    svg.append(group);
  }
  root.replaceChildren(svg);
}
