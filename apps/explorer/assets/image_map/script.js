export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".image_map");
  const { rows, columns, drag } = data;
  root.classList.toggle("drag", drag);
  root.style.width = data.width + "px";
  root.setAttribute("role", "application");
  root.setAttribute("aria-label", data.alt + (drag ? ". Drag to select positions; or" : ". Click a position, or") +
    " move with the arrow keys and press Enter.");
  const image = loadedImage(data.src, data.alt, "");
  image.draggable = false;
  const cover = (node, [top, left, bottom, right]) => {
    Object.assign(node.style, {
      display: "block", left: 100 * left / columns + "%", top: 100 * top / rows + "%",
      width: 100 * (right - left + 1) / columns + "%", height: 100 * (bottom - top + 1) / rows + "%",
    });
    return node;
  };
  const between = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  const cells = data.selected.map((cell) => cover(element("div", drag ? "cell lit" : "cell at"), between(cell, cell)));
  const hover = element("div", "cell over"), label = element("div", "label");
  const show = (box) => {
    hover.style.display = "none";
    label.textContent = "";
    if (!box) return;
    cover(hover, box);
    const [top, left, bottom, right] = box, value = data.values ? ": " + data.values[top][left] : "";
    label.textContent = top + "," + left + (top === bottom && left === right ? value : " to " + bottom + "," + right);
  };
  const inside = ([y, x]) => [Math.min(rows - 1, Math.max(0, y)), Math.min(columns - 1, Math.max(0, x))];
  const positionOf = (event) => {
    const box = image.getBoundingClientRect();
    return inside([Math.floor((event.clientY - box.top) / box.height * rows), Math.floor((event.clientX - box.left) / box.width * columns)]);
  };
  // a drag that begins on a selected position removes the box
  const send = (from, to) => drag
    ? setTriggerValue("box", [...between(from, to), data.selected.some(([y, x]) => y === from[0] && x === from[1]) ? 0 : 1])
    : setTriggerValue("position", to);
  let start = null, current = drag ? [0, 0] : data.selected[0];
  root.onpointermove = (event) => show(between(start || positionOf(event), positionOf(event)));
  root.onpointerleave = () => { if (!start) show(null); };
  if (drag) {
    root.onpointerdown = (event) => {
      start = positionOf(event);
      root.setPointerCapture(event.pointerId);
      show(between(start, start));
      event.preventDefault();
      root.focus();
    };
    root.onpointerup = (event) => {
      if (start) send(start, positionOf(event));
      start = null;
    };
  } else {
    root.onclick = (event) => send(null, positionOf(event));
  }
  root.onkeydown = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      const from = current || [0, 0];
      current = inside([from[0] + step[0], from[1] + step[1]]);
      show(between(current, current));
      event.preventDefault();
    } else if (event.key === "Enter" && current) {
      send(current, current);
    }
  };
  show(null);
  root.replaceChildren(image, ...cells, hover, label);
}
