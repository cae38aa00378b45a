export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".wires");
  const made = (tag, kind, text) => {
    const node = document.createElement(tag);
    node.className = kind;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const picture = (src, name, extra) => {
    if (!src) return made("span", "picture none " + extra, name);
    const image = made("img", "picture " + extra);
    image.src = src;
    image.alt = "what " + name + " answers to most";
    image.loading = "lazy";
    return image;
  };
  const link = (row) => {
    const a = document.createElement("a");
    a.href = row.href;
    a.dataset.unit = row.unit;
    a.title = row.address + (row.label ? ": " + row.label : "");
    a.onclick = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      setTriggerValue("open", row.unit);
    };
    return a;
  };
  root.replaceChildren(...data.rows.map((row) => {
    const box = made("div", "wire"), three = made("div", "three"), words = made("div", "words");
    const other = link(row);
    other.append(picture(row.src, row.address, ""));
    const own = picture(data.own, data.name, "own");
    const kernel = made("img", "kernel sharp");
    const most = Math.max(...row.shape);
    kernel.style.width = 50 * row.shape[1] / most + "px";
    kernel.style.height = 50 * row.shape[0] / most + "px";
    kernel.src = row.kernel;
    kernel.alt = "kernel: " + row.effect;
    kernel.title = row.weights;
    three.append(...(data.into ? [other, kernel, own] : [own, kernel, other]));
    const name = link(row);
    name.className = "name";
    if (row.label) name.append(made("b", "", row.label));
    name.append(made("span", "mono" + (row.label ? " muted" : ""), row.address));
    const kind = row.sign > 0 ? "plus" : row.sign < 0 ? "minus" : "";
    const line = made("div", "");
    line.append(made("span", kind, row.number), made("span", "muted", " \u00b7 " + row.share));
    words.append(name, line, made("div", "muted", row.effect));
    box.append(three, words);
    return box;
  }));
}
