export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".gallery");
  root.style.setProperty("--size", data.size + "px");
  root.style.maxWidth = data.tiles.length === 1 ? data.size + "px" : "";  // one picture alone would fill the row
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", data.label);
  root.replaceChildren(...data.tiles.map((tile) => {
    const opens = tile.unit !== null, picks = tile.pick !== null;
    const box = made(opens ? "a" : picks ? "button" : "div", "tile " + tile.mark);
    box.title = tile.alt;
    if (opens) {
      box.href = tile.href;
      box.dataset.unit = tile.unit;
      box.onclick = (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;  // a new tab is the browser's
        event.preventDefault();
        setTriggerValue("open", tile.unit);
      };
    } else if (picks) {
      box.type = "button";
      box.dataset.pick = tile.pick;
      box.onclick = () => setTriggerValue("pick", tile.pick);
    }
    if (tile.src) {
      const image = made("img", "picture");
      image.alt = tile.alt;
      image.loading = "lazy";
      image.src = tile.src;
      box.append(image);
    } else {
      box.append(made("span", "picture none", tile.alt));
    }
    if (tile.name) box.append(made("span", "name", tile.name));
    if (tile.note) box.append(made("span", "note", tile.note));
    return box;
  }));
}
