export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".gallery");
  group(root, "gallery", data.label);
  root.style.setProperty("--size", data.size + "px");
  root.style.maxWidth = data.tiles.length === 1 ? data.size + "px" : "";  // one image alone would fill the row
  root.replaceChildren(...data.tiles.map((tile) => {
    const kind = "tile " + tile.mark;
    let box;
    if (tile.unit !== null) {
      box = unitLink(tile, kind, setTriggerValue);
    } else if (tile.pick !== null) {
      box = element("button", kind);
      box.type = "button";
      box.dataset.pick = tile.pick;
      box.onclick = () => setTriggerValue("pick", tile.pick);
    } else {
      box = element("div", kind);
    }
    if (tile.unit === null || !tile.src) box.title = tile.alt;  // the link of a unit has a preview
    box.append(tile.src ? loadedImage(tile.src, tile.alt, "image") : element("span", "image none", tile.alt));
    if (tile.name) box.append(element("span", "name", tile.name));
    if (tile.note) box.append(element("span", "note", tile.note));
    return box;
  }));
}
