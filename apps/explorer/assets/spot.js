export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".spot");
  const { rows, columns } = data;
  root.style.width = data.width + "px";
  root.setAttribute("role", "application");
  root.setAttribute("aria-label", data.alt + ". Click a place, or move with the arrow keys and press Enter.");
  const image = document.createElement("img");
  image.src = data.src;
  image.alt = data.alt;
  image.draggable = false;
  const cell = (kind) => {
    const box = document.createElement("div");
    box.className = "cell " + kind;
    return box;
  };
  const over = cell("over"), at = cell("at"), said = document.createElement("div");
  said.className = "said";
  const put = (box, place) => {
    box.style.display = place ? "block" : "none";
    if (!place) return;
    Object.assign(box.style, {
      left: 100 * place[1] / columns + "%", top: 100 * place[0] / rows + "%",
      width: 100 / columns + "%", height: 100 / rows + "%",
    });
  };
  const tell = (place) => {
    put(over, place);
    said.textContent = !place ? "" : place.join(",") + (data.values ? ": " + data.values[place[0]][place[1]] : "");
  };
  let current = data.at;
  put(at, data.at);
  tell(null);
  const where = (event) => {
    const box = image.getBoundingClientRect();
    const y = Math.floor((event.clientY - box.top) / box.height * rows);
    const x = Math.floor((event.clientX - box.left) / box.width * columns);
    return [Math.min(rows - 1, Math.max(0, y)), Math.min(columns - 1, Math.max(0, x))];
  };
  root.onmousemove = (event) => tell(where(event));
  root.onmouseleave = () => tell(null);
  root.onclick = (event) => setTriggerValue("place", where(event));
  root.onkeydown = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      const from = current || [0, 0];
      current = [Math.min(rows - 1, Math.max(0, from[0] + step[0])), Math.min(columns - 1, Math.max(0, from[1] + step[1]))];
      tell(current);
      event.preventDefault();
    } else if (event.key === "Enter" && current) {
      setTriggerValue("place", current);
    }
  };
  root.replaceChildren(image, over, at, said);
}
