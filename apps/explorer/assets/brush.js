export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".brush");
  const { rows, columns } = data;
  root.style.width = data.width + "px";
  root.setAttribute("role", "application");
  root.setAttribute("aria-label", data.alt + ". Drag to choose places; or move with the arrow keys and press Enter.");
  const image = document.createElement("img");
  image.src = data.src;
  image.alt = data.alt;
  image.draggable = false;
  const chosen = new Set((data.places || []).map((place) => place.join(",")));
  const boxed = (kind, [top, left, bottom, right]) => {
    const box = document.createElement("div");
    box.className = kind;
    Object.assign(box.style, {
      left: 100 * left / columns + "%", top: 100 * top / rows + "%",
      width: 100 * (right - left + 1) / columns + "%", height: 100 * (bottom - top + 1) / rows + "%",
    });
    return box;
  };
  const shown = [...chosen].map((place) => {
    const [y, x] = place.split(",").map(Number);
    return boxed("lit", [y, x, y, x]);
  });
  const drag = boxed("cell over", [0, 0, 0, 0]), said = document.createElement("div");
  said.className = "said";
  drag.style.display = "none";
  const where = (event) => {
    const box = image.getBoundingClientRect();
    const y = Math.floor((event.clientY - box.top) / box.height * rows);
    const x = Math.floor((event.clientX - box.left) / box.width * columns);
    return [Math.min(rows - 1, Math.max(0, y)), Math.min(columns - 1, Math.max(0, x))];
  };
  const between = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  const put = (box) => {
    const made = boxed("", box).style;
    for (const side of ["left", "top", "width", "height"]) drag.style[side] = made[side];
    drag.style.display = "block";
    said.textContent = box[0] === box[2] && box[1] === box[3] ? box[0] + "," + box[1] : box.slice(0, 2) + " to " + box.slice(2);
  };
  const send = (box, first) => setTriggerValue("box", [...box, chosen.has(first.join(",")) ? 0 : 1]);
  let begun = null, current = [0, 0];
  root.onpointerdown = (event) => {
    begun = where(event);
    root.setPointerCapture(event.pointerId);
    put(between(begun, begun));
    event.preventDefault();
    root.focus();
  };
  root.onpointermove = (event) => {
    const now = where(event);
    put(between(begun || now, now));
  };
  root.onpointerup = (event) => {
    if (!begun) return;
    send(between(begun, where(event)), begun);
    begun = null;
  };
  root.onpointerleave = () => {
    if (begun) return;
    drag.style.display = "none";
    said.textContent = "";
  };
  root.onkeydown = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      current = [Math.min(rows - 1, Math.max(0, current[0] + step[0])), Math.min(columns - 1, Math.max(0, current[1] + step[1]))];
      put(between(current, current));
      event.preventDefault();
    } else if (event.key === "Enter") {
      send(between(current, current), current);
    }
  };
  root.replaceChildren(image, ...shown, drag, said);
}
